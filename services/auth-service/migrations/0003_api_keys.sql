-- API keys act for an organization. Only the SHA-256 of a key is stored; prefix and last four are what people see of it later.
create table api_keys (
    id                  uuid        primary key,
    organization_id     uuid        not null references organizations (id),
    created_by          uuid        references users (id),
    name                text        not null,
    key_sha256          text        not null constraint api_keys_key_sha256_key unique,
    prefix              text        not null,
    last_four           text        not null,
    scopes              text[]      not null,
    requests_per_minute integer     check (requests_per_minute > 0),
    expires_at          timestamptz,
    created_at          timestamptz not null,
    revoked_at          timestamptz,
    last_used_at        timestamptz
);
create index api_keys_organization on api_keys (organization_id, created_at desc, id desc);
create index api_keys_created_by on api_keys (created_by);

grant select, insert, update on api_keys to auth_app;
