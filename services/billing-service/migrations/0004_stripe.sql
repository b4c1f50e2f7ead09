-- What Stripe tells us: stored before it is acknowledged, handled afterwards. The event's id is the key, kept for ever.
create table stripe_events (
    event_id    text        primary key,
    kind        text        not null,
    livemode    boolean     not null,
    api_version text,
    payload     jsonb       not null,
    state       text        not null check (state in ('received', 'handled', 'ignored')),
    created_at  timestamptz not null,
    received_at timestamptz not null,
    handled_at  timestamptz
);
create index stripe_events_received on stripe_events (received_at) where state = 'received';

-- What we want of Stripe: written with the state change that wants it, sent afterwards with its own idempotency key.
create table stripe_customers (
    organization_id uuid        primary key,
    email           text        not null,
    name            text        not null,
    idempotency_key text        not null,
    customer_id     text        constraint stripe_customers_customer_id_key unique,
    attempts        integer     not null default 0,
    next_attempt_at timestamptz not null,
    created_at      timestamptz not null
);
create index stripe_customers_unsent on stripe_customers (next_attempt_at) where customer_id is null;

grant select, insert on stripe_events, stripe_customers to billing_app;
grant update (state, handled_at) on stripe_events to billing_app;
grant update (customer_id, attempts, next_attempt_at) on stripe_customers to billing_app;
