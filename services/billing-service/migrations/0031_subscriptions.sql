-- Subscriptions as the state machine knows them. `state` is all of it; the columns beside it are what the database itself must hold
-- to: one living subscription for each group of plans [B-69], and which ones the clock must look at next.
create table subscriptions (
    id              uuid        primary key,
    organization_id uuid        not null,
    plan_group      text        not null,
    plan_code       text        not null,
    plan_version    integer     not null,
    status          text        not null check (status in
        ('incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'unpaid', 'paused', 'canceled')),
    currency        text        not null check (currency ~ '^[A-Z]{3}$'),
    -- Raised by each change; whoever writes names the one that was read.
    revision        bigint      not null check (revision > 0),
    state           jsonb       not null,
    next_action_at  timestamptz,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    foreign key (plan_code, plan_version) references plan_versions (code, version)
);
create unique index subscriptions_one_living_in_a_group on subscriptions (organization_id, plan_group)
    where status not in ('canceled', 'incomplete_expired');
create index subscriptions_due on subscriptions (next_action_at) where next_action_at is not null;
create index subscriptions_organization on subscriptions (organization_id, created_at desc);

-- Terminal states never go backwards [B-18]; the machine knows it, and the database holds it.
create function refuse_resurrection() returns trigger language plpgsql as $$
begin
    raise exception 'subscription % is over', old.id using errcode = 'check_violation', constraint = 'subscriptions_over_stays_over';
end $$;
create trigger subscriptions_over_stays_over before update on subscriptions for each row
    when (old.status in ('canceled', 'incomplete_expired') and new.status <> old.status)
    execute function refuse_resurrection();

-- Every change, never edited.
create table subscription_changes (
    subscription_id uuid        not null references subscriptions (id),
    revision        bigint      not null,
    organization_id uuid        not null,
    actor           text        not null,
    command         jsonb       not null,
    status_before   text,
    status_after    text        not null,
    effects         jsonb       not null,
    occurred_at     timestamptz not null,
    primary key (subscription_id, revision)
);

-- What is charged and what is given: each once for a subscription, a period and a reason [B-77]. That, and not care, is the guard
-- against billing twice.
create table subscription_charges (
    id              uuid        primary key,
    subscription_id uuid        not null references subscriptions (id),
    organization_id uuid        not null,
    period_start    timestamptz not null,
    reason          text        not null,
    currency        text        not null,
    lines           jsonb       not null,
    total_micros    bigint      not null check (total_micros > 0),
    created_at      timestamptz not null,
    constraint subscription_charges_once unique (subscription_id, period_start, reason)
);

create table subscription_grants (
    id              uuid        primary key,
    subscription_id uuid        not null references subscriptions (id),
    organization_id uuid        not null,
    period_start    timestamptz not null,
    reason          text        not null,
    currency        text        not null,
    amount_micros   bigint      not null check (amount_micros > 0),
    expires_at      timestamptz,
    created_at      timestamptz not null,
    -- Set by whoever posts it to the ledger, in the transaction of the posting.
    posted_at       timestamptz,
    constraint subscription_grants_once unique (subscription_id, period_start, reason)
);
create index subscription_grants_unposted on subscription_grants (created_at) where posted_at is null;

-- The currency a customer pays in: that of the first purchase, for good.
create table billing_currencies (
    organization_id uuid        primary key,
    currency        text        not null check (currency ~ '^[A-Z]{3}$'),
    created_at      timestamptz not null
);

-- How often what an organization may do has changed: what a cache has with a lower number is old. `organization_id` is null for what
-- concerns everybody.
create table entitlement_versions (
    organization_id uuid    constraint entitlement_versions_organization_id_key unique nulls not distinct,
    version         bigint  not null
);
insert into entitlement_versions (organization_id, version) values (null, 1);

grant select, insert on subscriptions, subscription_changes, subscription_charges, subscription_grants, billing_currencies, entitlement_versions
    to billing_app;
grant update (plan_group, plan_code, plan_version, status, revision, state, next_action_at, updated_at) on subscriptions to billing_app;
grant update (posted_at) on subscription_grants to billing_app;
grant update (version) on entitlement_versions to billing_app;
