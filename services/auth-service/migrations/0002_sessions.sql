-- A session is the family of refresh tokens that began with one login. Only the SHA-256 of a token is stored; a used token
-- stays, so that its second use is recognized as theft and ends the family.
create table sessions (
    id              uuid        primary key,
    user_id         uuid        not null references users (id),
    organization_id uuid        not null references organizations (id),
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    revoked_at      timestamptz,
    revoked_reason  text
);
create index sessions_user_id on sessions (user_id);
create index sessions_organization_id on sessions (organization_id);

create table refresh_tokens (
    token_sha256 bytea       primary key,
    session_id   uuid        not null references sessions (id),
    created_at   timestamptz not null,
    expires_at   timestamptz not null,
    used_at      timestamptz,
    successor    bytea
);
create index refresh_tokens_session_id on refresh_tokens (session_id);

grant select, insert, update on sessions, refresh_tokens to auth_app;
