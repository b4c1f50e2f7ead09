-- Customers that were deleted at Stripe and made anew: what was paid by one of them stays ours, and so do its refunds and disputes.
create table stripe_former_customers (
    customer_id     text        primary key,
    organization_id uuid        not null,
    created_at      timestamptz not null
);

grant select, insert on stripe_former_customers to billing_app;
