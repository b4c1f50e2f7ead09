-- The whole chart of accounts (docs/architecture/LEDGER.md), an overdraft that is somebody's decision and not an accident, and rows that
-- nobody changes: what the running role may not do by its grants, the owner of the schema may not do by these triggers.
alter table accounts drop constraint accounts_kind_check;
alter table accounts add constraint accounts_kind_check check (kind in (
    'wallet', 'holds', 'debt',
    'revenue', 'plan_fees', 'breakage', 'refunds', 'provider_cost', 'provider_payable', 'promotion',
    'stripe_clearing', 'disputes', 'adjustments', 'transfers', 'rounding'));
-- Who owns what: an account of the house never belongs to an organization, nor the reverse.
alter table accounts add constraint accounts_owner_check check ((kind in ('wallet', 'holds', 'debt')) = (organization_id is not null));

insert into accounts (id, organization_id, kind, currency)
select gen_random_uuid(), null, k.kind, 'USD'
from (values ('plan_fees'), ('breakage'), ('refunds'), ('stripe_clearing'), ('disputes'), ('adjustments'), ('transfers'), ('rounding')) as k (kind)
on conflict on constraint accounts_owner_kind_currency_key do nothing;

-- How far below zero a hold may take what is available [B-37]; zero unless an operator says otherwise.
alter table wallets add column overdraft_limit bigint not null default 0 constraint wallets_overdraft_limit check (overdraft_limit >= 0);
grant update (overdraft_limit) on wallets to billing_app;

-- A wallet may be below zero by its limit, and only while holds stand on it: what they turn out to cost becomes debt.
alter table accounts drop constraint accounts_not_overdrawn;
alter table accounts add constraint accounts_not_overdrawn check (kind <> 'holds' or balance_micros >= 0);
create function check_overdraft() returns trigger language plpgsql security definer set search_path = public as $$
begin
    if new.balance_micros < -coalesce((select overdraft_limit from wallets where organization_id = new.organization_id), 0) then
        raise exception 'wallet of organization % is overdrawn', new.organization_id
            using errcode = 'check_violation', constraint = 'accounts_not_overdrawn';
    end if;
    return null;
end $$;
create trigger accounts_not_overdrawn after update of balance_micros on accounts for each row
    when (new.kind = 'wallet' and new.balance_micros < 0 and new.balance_micros < old.balance_micros) execute function check_overdraft();

-- Whoever takes from a wallet of their own will (a hold, a transfer) finds there what they take, debt and overdraft counted in. What has
-- already happened (a settlement, a refund) is always recorded and may end in debt [B-40, B-43, B-48].
create function check_within_limit() returns trigger language plpgsql security definer set search_path = public as $$
declare
    breached uuid;
begin
    select a.organization_id into breached
    from (select distinct t.organization_id from inserted i join ledger_transactions t on t.id = i.transaction_id
          where t.kind in ('reservation', 'lease', 'transfer_out')) taken
    join wallets w on w.organization_id = taken.organization_id
    join accounts a on a.organization_id = taken.organization_id and a.kind in ('wallet', 'debt')
    group by a.organization_id, w.overdraft_limit having sum(a.balance_micros) < -w.overdraft_limit
    limit 1;
    if found then
        raise exception 'organization % takes more than is available', breached
            using errcode = 'check_violation', constraint = 'wallets_within_limit';
    end if;
    return null;
end $$;
create trigger ledger_entries_within_limit after insert on ledger_entries referencing new table as inserted
    for each statement execute function check_within_limit();

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are only ever inserted', tg_table_name using errcode = 'check_violation', constraint = tg_table_name || '_append_only';
end $$;
create trigger ledger_transactions_append_only before update or delete or truncate on ledger_transactions
    for each statement execute function refuse_change();
create trigger ledger_entries_append_only before update or delete or truncate on ledger_entries
    for each statement execute function refuse_change();
