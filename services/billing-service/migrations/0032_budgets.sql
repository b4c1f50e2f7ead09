-- Budgets: what an organization wants to spend at most, and whom to tell. Hard ones refuse; soft ones tell.
create table budgets (
    id              uuid        primary key,
    organization_id uuid        not null,
    name            text        not null,
    scope           text        not null check (scope in ('organization', 'user', 'api_key', 'tag')),
    -- Which user, key or tag; empty for the organization.
    scope_id        text        not null,
    period          text        not null check (period in ('minute', 'day', 'month')),
    limit_micros    bigint      not null check (limit_micros > 0),
    currency        text        not null check (currency ~ '^[A-Z]{3}$'),
    hard            boolean     not null,
    -- Percent of the limit at which somebody is told, ascending.
    thresholds      integer[]   not null,
    forecast        boolean     not null,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    deleted_at      timestamptz,
    check ((scope = 'organization') = (scope_id = ''))
);
create index budgets_organization on budgets (organization_id, created_at desc, id desc) where deleted_at is null;

-- What was told: once for a budget, a period and a threshold, whoever evaluates how often.
create table budget_alerts (
    id              uuid        primary key,
    budget_id       uuid        not null references budgets (id),
    organization_id uuid        not null,
    period_start    timestamptz not null,
    -- `percent:80`, or `forecast`.
    threshold       text        not null,
    spent_micros    bigint      not null,
    limit_micros    bigint      not null,
    currency        text        not null,
    created_at      timestamptz not null,
    constraint budget_alerts_once unique (budget_id, period_start, threshold)
);
create index budget_alerts_organization on budget_alerts (organization_id, created_at desc, id desc);

-- Where an organization wants to be told. The signing secret is derived from the service's own and the id; none is stored.
create table webhook_endpoints (
    id              uuid        primary key,
    organization_id uuid        not null,
    url             text        not null,
    created_at      timestamptz not null,
    deleted_at      timestamptz
);
create index webhook_endpoints_organization on webhook_endpoints (organization_id) where deleted_at is null;

-- What is to be told to an endpoint. The id of the message is the same for each attempt, so that a receiver can drop repetitions.
create table webhook_deliveries (
    id              uuid        primary key,
    endpoint_id     uuid        not null references webhook_endpoints (id),
    organization_id uuid        not null,
    message_id      text        not null,
    kind            text        not null,
    payload         text        not null,
    state           text        not null check (state in ('waiting', 'delivered', 'failed')),
    attempts        integer     not null default 0,
    next_attempt_at timestamptz not null,
    last_error      text,
    last_status     integer,
    created_at      timestamptz not null,
    delivered_at    timestamptz,
    constraint webhook_deliveries_once unique (endpoint_id, message_id)
);
create index webhook_deliveries_waiting on webhook_deliveries (next_attempt_at) where state = 'waiting';
create index webhook_deliveries_organization on webhook_deliveries (organization_id, created_at desc, id desc);

grant select, insert on budgets, budget_alerts, webhook_endpoints, webhook_deliveries to billing_app;
grant update (name, limit_micros, hard, thresholds, forecast, updated_at, deleted_at) on budgets to billing_app;
grant update (deleted_at) on webhook_endpoints to billing_app;
grant update (state, attempts, next_attempt_at, last_error, last_status, delivered_at) on webhook_deliveries to billing_app;
