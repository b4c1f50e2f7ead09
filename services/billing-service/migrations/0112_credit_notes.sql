-- Stripe's credit notes as they were last seen, beside the invoices that they are of. What of one went to the customer's balance is in the
-- ledger (`credit_note`), what of it went back to a card is a refund of its own.
create table stripe_credit_notes (
    credit_note_id    text        primary key,
    organization_id   uuid        not null references wallets (organization_id),
    -- No reference: a credit note may be seen before its invoice is.
    invoice_id        text        not null,
    number            text,
    status            text        not null,
    reason            text,
    memo              text,
    currency          text        not null check (currency ~ '^[A-Z]{3}$'),
    -- With tax: in all; what of it made an open invoice cheaper; what went to the balance, back to a card, and was settled elsewhere.
    amount_micros     bigint      not null,
    reduced_micros    bigint      not null,
    balance_micros    bigint      not null,
    refunded_micros   bigint      not null,
    elsewhere_micros  bigint      not null,
    pdf_url           text,
    fetched           bigint      not null,
    created_at        timestamptz not null,
    voided_at         timestamptz
);
create index stripe_credit_notes_invoice on stripe_credit_notes (invoice_id);

grant select, insert on stripe_credit_notes to billing_app;
grant update (number, status, reason, memo, amount_micros, reduced_micros, balance_micros, refunded_micros, elsewhere_micros, pdf_url, fetched, voided_at)
    on stripe_credit_notes to billing_app;

-- Locks: rows are there only while a comparison runs, and adding a word to the list looks at no more than those.
alter table reconciliation_listed drop constraint reconciliation_listed_list_check;
alter table reconciliation_listed add constraint reconciliation_listed_list_check
    check (list in ('customers', 'payments', 'reversals', 'invoices', 'credit_notes', 'sessions', 'paid'));
