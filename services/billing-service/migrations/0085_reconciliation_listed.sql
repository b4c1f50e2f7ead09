-- What a comparison with Stripe reads there, page by page, while it runs: no list of Stripe's is in a process's memory as a whole. Rows are
-- of their run alone and go with it; those of a run that was killed go with a later one. Logged all the same: a crash empties what is not,
-- and a run that goes on after it would miss what it had listed.
create table reconciliation_listed (
    run_id    uuid        not null,
    list      text        not null check (list in ('customers', 'payments', 'reversals', 'invoices', 'sessions', 'paid')),
    -- Stripe's.
    id        text        not null,
    -- The few fields that are compared.
    object    jsonb       not null,
    listed_at timestamptz not null,
    primary key (run_id, list, id)
);

grant select, insert, update, delete on reconciliation_listed to billing_app;
