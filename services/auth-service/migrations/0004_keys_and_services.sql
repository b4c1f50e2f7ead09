-- The keys that sign tokens, encrypted under a key that is not in this database. One is current, the next is published before
-- it signs, and a former one is published until the last token it signed has ended.
create table signing_keys (
    kid         text        primary key,
    public_key  bytea       not null,
    private_key bytea       not null,
    state       text        not null check (state in ('current', 'next', 'former')),
    created_at  timestamptz not null,
    retired_at  timestamptz
);
create unique index signing_keys_current on signing_keys (state) where state in ('current', 'next');

-- Assertions that services presented: each is taken once (RFC 7523 section 3).
create table used_assertions (
    service    text        not null,
    jti        text        not null,
    expires_at timestamptz not null,
    primary key (service, jti)
);

-- What administrators may do once before there is one.
create table bootstrap_tokens (
    token_sha256 bytea       primary key,
    expires_at   timestamptz not null,
    used_at      timestamptz
);

-- Who did what, when, and how it ended; append-only.
create table audit_events (
    id              uuid        primary key,
    occurred_at     timestamptz not null,
    action          text        not null,
    outcome         text        not null,
    actor           text        not null,
    organization_id uuid,
    client_address  text,
    request_id      text
);
create index audit_events_organization on audit_events (organization_id, occurred_at desc);

grant select, insert, update on signing_keys, bootstrap_tokens to auth_app;
grant select, insert, delete on used_assertions to auth_app;
grant select, insert on audit_events to auth_app;
