-- A comparison says how many credit notes of ours Stripe has, as it does of all else that it compares.
alter table reconciliation_runs add column credit_notes bigint not null default 0;
