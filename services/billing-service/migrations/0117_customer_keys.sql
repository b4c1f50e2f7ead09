-- An error that Stripe's servers answer with again under one key is the recording of the first: who counts them by key knows when another is due.
alter table stripe_customers
    add column same_failures integer not null default 0,
    add column key_number    integer not null default 0;
grant update (same_failures, key_number) on stripe_customers to billing_app;
