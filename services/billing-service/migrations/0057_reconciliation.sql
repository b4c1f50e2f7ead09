-- Our books beside Stripe's [B-75, B-76]: each comparison and what it found, only ever inserted.
create table reconciliation_runs (
    id          uuid        primary key,
    started_at  timestamptz not null,
    ended_at    timestamptz not null,
    -- Objects of Stripe's that were looked at.
    customers   bigint      not null,
    payments    bigint      not null,
    reversals   bigint      not null,
    invoices    bigint      not null,
    sessions    bigint      not null,
    infos       bigint      not null,
    warnings    bigint      not null,
    errors      bigint      not null
);
create index reconciliation_runs_started on reconciliation_runs (started_at desc);

create table reconciliation_differences (
    run_id          uuid    not null references reconciliation_runs (id),
    number          integer not null,
    kind            text    not null,
    severity        text    not null check (severity in ('info', 'warning', 'error')),
    organization_id uuid,
    -- What it is about: an id of Stripe's where there is one, or else ours.
    object          text    not null,
    ours            text    not null,
    theirs          text    not null,
    sentence        text    not null,
    primary key (run_id, number)
);

grant select, insert on reconciliation_runs, reconciliation_differences to billing_app;
