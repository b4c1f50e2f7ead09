-- Credit that is topped up by itself when the wallet runs low [B-49].
create table auto_top_ups (
    organization_id     uuid        primary key references wallets (organization_id),
    enabled             boolean     not null,
    -- What the wallet must not stay below, what is bought then at least, and how much in a calendar month (UTC) at most.
    threshold_micros    bigint      not null check (threshold_micros >= 0),
    amount_micros       bigint      not null check (amount_micros > 0),
    monthly_cap_micros  bigint      not null check (monthly_cap_micros >= amount_micros),
    -- Failures since the last success; after enough of them it is off until somebody switches it on.
    failures            integer     not null default 0,
    -- Not before this instant: a pause after each one.
    next_at             timestamptz not null,
    updated_at          timestamptz not null
);

create table top_ups (
    id              uuid        primary key,
    organization_id uuid        not null references wallets (organization_id),
    amount_micros   bigint      not null check (amount_micros > 0),
    state           text        not null check (state in ('wanted', 'paid', 'failed')),
    created_at      timestamptz not null,
    ended_at        timestamptz
);
-- One in flight for each wallet: the database holds it, whoever looks [B-49].
create unique index top_ups_one_in_flight on top_ups (organization_id) where state = 'wanted';
create index top_ups_month on top_ups (organization_id, created_at);

grant select, insert on auto_top_ups, top_ups to billing_app;
grant update (enabled, threshold_micros, amount_micros, monthly_cap_micros, failures, next_at, updated_at) on auto_top_ups to billing_app;
grant update (state, ended_at) on top_ups to billing_app;
