-- Credit that is paid in another currency: the money and the credit meet on an account of the house for each currency (`exchange`), which
-- a trading account is. What met is kept beside the payment, so that what goes back of it goes back at the same price.
-- Locks: the accounts are few, three for each organization and one of the house for each kind; the check is quick over them.
alter table accounts drop constraint accounts_kind_check;
alter table accounts add constraint accounts_kind_check check (kind in (
    'wallet', 'holds', 'debt',
    'revenue', 'plan_fees', 'breakage', 'refunds', 'provider_cost', 'provider_payable', 'promotion',
    'stripe_clearing', 'exchange', 'disputes', 'adjustments', 'transfers', 'rounding'));

-- What the thing costs in the currency of credit, if it is sold in it and is paid in another.
alter table checkouts add column par_micros bigint;

-- Of the money so much, for so much of the credit; none where both are one currency.
alter table stripe_payments add column exchanged_micros bigint, add column bought_micros bigint;
alter table stripe_reversals add column exchanged_micros bigint, add column bought_micros bigint;
alter table grant_takebacks add column currency text, add column exchanged_micros bigint, add column bought_micros bigint;
grant update (exchanged_micros, bought_micros) on stripe_reversals to billing_app;

-- A wallet is in one currency: what is in another is no part of what may be taken.
create or replace function check_within_limit() returns trigger language plpgsql security definer set search_path = public as $$
declare
    breached uuid;
begin
    select a.organization_id into breached
    from (select distinct t.organization_id from inserted i join ledger_transactions t on t.id = i.transaction_id
          where t.kind in ('reservation', 'lease', 'transfer_out')) taken
    join wallets w on w.organization_id = taken.organization_id
    join accounts a on a.organization_id = taken.organization_id and a.currency = w.currency and a.kind in ('wallet', 'debt')
    group by a.organization_id, w.overdraft_limit having sum(a.balance_micros) < -w.overdraft_limit
    limit 1;
    if found then
        raise exception 'organization % takes more than is available', breached
            using errcode = 'check_violation', constraint = 'wallets_within_limit';
    end if;
    return null;
end $$;
