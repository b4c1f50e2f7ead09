-- What Stripe keeps as a customer's balance: credit of the customer's that pays invoices before a card does, and small invoices that wait for
-- the next one. It is an account of the house (`customer_balances`, docs/architecture/LEDGER.md), and what of a payment came from it is kept
-- beside the payment, so that clearing has what a card paid and no more goes back than that.
-- Locks: the accounts are few, three for each organization and one of the house for each kind; the check is quick over them.
alter table accounts drop constraint accounts_kind_check;
alter table accounts add constraint accounts_kind_check check (kind in (
    'wallet', 'holds', 'debt',
    'revenue', 'plan_fees', 'breakage', 'refunds', 'provider_cost', 'provider_payable', 'promotion',
    'stripe_clearing', 'exchange', 'customer_balances', 'disputes', 'adjustments', 'transfers', 'rounding'));

-- What of the amount the balance paid; below zero: so much more was paid, for what had waited.
alter table stripe_payments add column balance_micros bigint not null default 0;
alter table stripe_payments drop constraint stripe_payments_check;
-- Every row that is there keeps it: none of them has anything from a balance.
alter table stripe_payments add constraint stripe_payments_check
    check (reversed_micros between 0 and greatest(amount_micros - balance_micros, 0)) not valid;

-- What went back beyond the sale is below zero here: what had waited and was paid with it.
alter table stripe_reversals add column balance_micros bigint not null default 0;
alter table grant_takebacks add column balance_micros bigint not null default 0;
grant update (balance_micros) on stripe_reversals to billing_app;
