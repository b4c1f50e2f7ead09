-- Money that comes through Stripe: what somebody wants to buy, what was paid, and what Stripe's invoices say.

-- A page on which something is bought. One at a time for each thing, so that two tabs share one page and pay once [B-69].
create table checkouts (
    id              uuid        primary key,
    organization_id uuid        not null references wallets (organization_id),
    kind            text        not null check (kind in ('credit_pack', 'plan', 'card')),
    -- The pack, or the group of the plan: of one there is one page.
    item            text        not null,
    -- What exactly: a page for something else replaces it.
    wanted          jsonb       not null,
    description     text        not null,
    currency        text        not null check (currency ~ '^[A-Z]{3}$'),
    amount_micros   bigint      not null check (amount_micros >= 0),
    -- What a pack gives, and until when.
    credit_micros   bigint      not null default 0 check (credit_micros >= 0),
    credit_days     integer     check (credit_days > 0),
    subscription_id uuid        references subscriptions (id),
    success_url     text        not null,
    cancel_url      text        not null,
    state           text        not null check (state in ('wanted', 'open', 'paid', 'expired')),
    session_id      text        constraint checkouts_session_id_key unique,
    url             text,
    expires_at      timestamptz not null,
    created_at      timestamptz not null,
    ended_at        timestamptz
);
create unique index checkouts_one_open on checkouts (organization_id, kind, item) where state in ('wanted', 'open');

-- What was paid, by the PaymentIntent, which refunds and disputes name. The sale in the ledger has the same key.
create table stripe_payments (
    payment_intent_id text        primary key,
    organization_id   uuid        not null references wallets (organization_id),
    -- By what it was paid: a checkout, a charge of a subscription, a top-up.
    source            text        not null check (source in ('checkout', 'charge', 'top_up')),
    source_id         uuid        not null,
    currency          text        not null check (currency ~ '^[A-Z]{3}$'),
    -- The money without tax, and the credit that was sold with it.
    amount_micros     bigint      not null check (amount_micros >= 0),
    credit_micros     bigint      not null check (credit_micros >= 0),
    -- False: it came when it no longer could have an effect, is no sale, and goes back.
    sold              boolean     not null,
    -- What of the money is back with the customer, or disputed.
    reversed_micros   bigint      not null default 0 check (reversed_micros between 0 and amount_micros),
    paid_at           timestamptz not null
);
create index stripe_payments_source on stripe_payments (source_id);
create index stripe_payments_organization on stripe_payments (organization_id, paid_at desc);

-- Refunds and disputes as they were last seen, and what was posted of each.
create table stripe_reversals (
    object_id         text        primary key,
    payment_intent_id text        not null references stripe_payments (payment_intent_id),
    kind              text        not null check (kind in ('refund', 'dispute')),
    amount_micros     bigint      not null check (amount_micros > 0),
    status            text        not null,
    -- Whether it was taken back, what of the sale that was, and whether a dispute has ended since.
    posted            boolean     not null default false,
    paid_micros       bigint      not null default 0 check (paid_micros >= 0),
    credit_micros     bigint      not null default 0 check (credit_micros >= 0),
    closed            boolean     not null default false,
    fetched           bigint      not null,
    updated_at        timestamptz not null
);
create index stripe_reversals_payment on stripe_reversals (payment_intent_id);

-- Numbers of looks at Stripe: what was asked for later is at least as new, whenever its answer arrives. A row is only written by a
-- later look than the one it has [B-17, B-19].
create sequence stripe_fetches;

create table stripe_invoices (
    invoice_id        text        primary key,
    organization_id   uuid        not null references wallets (organization_id),
    source            text        check (source in ('charge', 'top_up')),
    source_id         uuid,
    number            text,
    status            text        not null,
    currency          text        not null check (currency ~ '^[A-Z]{3}$'),
    subtotal_micros   bigint      not null,
    discount_micros   bigint      not null,
    tax_micros        bigint      not null,
    total_micros      bigint      not null,
    paid_micros       bigint      not null,
    lines             jsonb       not null check (jsonb_typeof(lines) = 'array'),
    hosted_url        text,
    pdf_url           text,
    fetched           bigint      not null,
    created_at        timestamptz not null,
    paid_at           timestamptz
);
create index stripe_invoices_organization on stripe_invoices (organization_id, created_at desc, invoice_id desc);

-- The second and later tries of a wish use the key that stands there, unless that can no longer be told from another wish
-- [B-64, B-65]: then it is looked up at Stripe first, and only then tried under a new one.
alter table intents
    add column key_number integer not null default 0,
    add column last_status integer,
    add column same_failures integer not null default 0;

-- What of a sale was given back besides its credit.
alter table grant_takebacks add column paid_micros bigint check (paid_micros >= 0);

grant select, insert on checkouts, stripe_payments, stripe_reversals, stripe_invoices to billing_app;
grant usage on sequence stripe_fetches to billing_app;
grant update (state, session_id, url, ended_at) on checkouts to billing_app;
grant update (reversed_micros) on stripe_payments to billing_app;
grant update (status, posted, paid_micros, credit_micros, closed, fetched, updated_at) on stripe_reversals to billing_app;
grant update (source, source_id, number, status, subtotal_micros, discount_micros, tax_micros, total_micros, paid_micros, lines, hosted_url, pdf_url, fetched, paid_at)
    on stripe_invoices to billing_app;
grant update (key_number, last_status, same_failures) on intents to billing_app;
-- A customer that was deleted at Stripe is made anew, under another key.
grant update (idempotency_key) on stripe_customers to billing_app;
