-- What is sold, in versions. A version is never edited: who subscribed to it stays on it, and an invoice of last year can be
-- explained by the row it was made from. The running role may add versions and say that one is no longer sold, and nothing else.
create table catalog_versions (
    version      integer     primary key,
    digest       text        not null,
    default_plan text,
    applied_by   text        not null,
    applied_at   timestamptz not null
);

create table plans (
    code       text        primary key,
    -- Of one group a customer has at most one; a plan never moves to another.
    plan_group text        not null,
    created_at timestamptz not null
);

create table plan_versions (
    code            text        not null references plans (code),
    version         integer     not null check (version > 0),
    definition      jsonb       not null,
    catalog_version integer     not null references catalog_versions (version),
    created_at      timestamptz not null,
    -- Since when it is no longer sold.
    retired_at      timestamptz,
    primary key (code, version)
);
create unique index plan_versions_sold on plan_versions (code) where retired_at is null;

-- Each price is a thing of its own at Stripe.
create table prices (
    id               uuid    primary key,
    plan_code        text    not null,
    plan_version     integer not null,
    kind             text    not null check (kind in ('base', 'seat')),
    currency         text    not null check (currency ~ '^[A-Z]{3}$'),
    billing_interval text    not null check (billing_interval in ('month', 'year')),
    amount_micros    bigint  not null check (amount_micros >= 0),
    foreign key (plan_code, plan_version) references plan_versions (code, version),
    constraint prices_key unique (plan_code, plan_version, kind, currency, billing_interval)
);

create table credit_packs (
    code            text        not null,
    version         integer     not null check (version > 0),
    definition      jsonb       not null,
    catalog_version integer     not null references catalog_versions (version),
    created_at      timestamptz not null,
    retired_at      timestamptz,
    primary key (code, version)
);
create unique index credit_packs_sold on credit_packs (code) where retired_at is null;

create table coupons (
    code            text        not null,
    version         integer     not null check (version > 0),
    definition      jsonb       not null,
    catalog_version integer     not null references catalog_versions (version),
    created_at      timestamptz not null,
    retired_at      timestamptz,
    primary key (code, version)
);
create unique index coupons_sold on coupons (code) where retired_at is null;

grant select, insert on catalog_versions, plans, plan_versions, prices, credit_packs, coupons to billing_app;
grant update (retired_at) on plan_versions, credit_packs, coupons to billing_app;

-- What we want of Stripe: written in the transaction of the state change that wants it, sent afterwards by a worker with the key
-- that was stored here before the first try. Of one subject in the order of `position`.
create table intents (
    id              uuid        primary key,
    position        bigint      generated always as identity,
    kind            text        not null,
    subject         text        not null,
    organization_id uuid,
    idempotency_key text        not null constraint intents_idempotency_key_key unique,
    payload         jsonb       not null,
    attempts        integer     not null default 0,
    next_attempt_at timestamptz not null,
    created_at      timestamptz not null,
    sent_at         timestamptz,
    -- What Stripe calls what it made.
    external_id     text
);
create index intents_unsent on intents (next_attempt_at, position) where sent_at is null;
create index intents_subject on intents (subject, position);

grant select, insert on intents to billing_app;
grant update (attempts, next_attempt_at, sent_at, external_id) on intents to billing_app;

-- Who changed what, by hand: in the transaction of the change, never edited [B-78].
create table catalog_audit (
    id          uuid        primary key,
    actor       text        not null,
    action      text        not null,
    before      text        not null,
    after       text        not null,
    detail      text        not null,
    occurred_at timestamptz not null
);
grant select, insert on catalog_audit to billing_app;
