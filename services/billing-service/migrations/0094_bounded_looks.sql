-- A plan is made for tables of one size and kept while they grow: as a join of everything that a statement wrote with the ledger, it may
-- begin at the other side and read all entries of an account for each batch. So each look is held to its order: what was written first,
-- and for each of it the rows by their key (`offset 0` keeps the planner from turning that round; `= any(array(…))` does it for updates).

create or replace function check_entries() returns trigger language plpgsql set search_path = public set enable_seqscan = off as $$
declare
    found_id uuid;
begin
    select i.transaction_id into found_id from (select distinct transaction_id from inserted) i
    where not exists (select from ledger_transactions t where t.id = i.transaction_id and t.xmin = pg_current_xact_id()::xid offset 0) limit 1;
    if found then
        raise exception 'ledger transaction % is closed', found_id using errcode = 'check_violation', constraint = 'ledger_transactions_closed';
    end if;
    select i.transaction_id into found_id from (select distinct transaction_id from inserted) i
    cross join lateral (
        select bool_or(c.total <> 0) or sum(c.entries) < 2 as is_wrong from (
            select count(*) as entries, sum(e.amount_micros) as total
            from (select account_id, amount_micros from ledger_entries where transaction_id = i.transaction_id offset 0) e
            cross join lateral (select currency from accounts where id = e.account_id offset 0) a
            group by a.currency) c
        offset 0) looked
    where looked.is_wrong is not false limit 1;
    if found then
        raise exception 'ledger transaction % is not balanced', found_id using errcode = 'check_violation', constraint = 'ledger_transactions_balanced';
    end if;
    return null;
end $$;

create or replace function apply_entries() returns trigger language plpgsql security definer set search_path = public set enable_seqscan = off as $$
declare
    touched uuid[] := array(select distinct account_id from inserted);
    updated bigint;
begin
    -- In the order of locks that everybody keeps (src/ledger.rs).
    perform from accounts where id = any(touched) order by organization_id nulls last, kind, currency for no key update;
    update accounts a set balance_micros = a.balance_micros + moved.amount
    from (select account_id, sum(amount_micros)::bigint as amount from inserted group by account_id) moved
    where a.id = moved.account_id and a.id = any(touched);
    get diagnostics updated = row_count;
    if updated <> cardinality(touched) then
        raise exception 'an entry has no account' using errcode = 'foreign_key_violation', constraint = 'ledger_entries_account_id_fkey';
    end if;
    return null;
end $$;

create or replace function check_within_limit() returns trigger language plpgsql security definer set search_path = public set enable_seqscan = off as $$
declare
    breached uuid;
begin
    select taken.organization_id into breached
    from (select distinct t.organization_id from inserted i
          cross join lateral (select organization_id, kind from ledger_transactions where id = i.transaction_id offset 0) t
          where t.kind in ('reservation', 'lease', 'transfer_out')) taken
    cross join lateral (select currency, overdraft_limit from wallets where organization_id = taken.organization_id offset 0) w
    cross join lateral (
        select sum(balance_micros) as available from accounts
        where organization_id = taken.organization_id and currency = w.currency and kind in ('wallet', 'debt') offset 0) a
    where a.available < -w.overdraft_limit limit 1;
    if found then
        raise exception 'organization % takes more than is available', breached
            using errcode = 'check_violation', constraint = 'wallets_within_limit';
    end if;
    return null;
end $$;

create or replace function apply_movements() returns trigger language plpgsql security definer set search_path = public set enable_seqscan = off as $$
declare
    touched uuid[] := array(select distinct grant_id from inserted);
begin
    update grants g set remaining_micros = g.remaining_micros + moved.amount, version = g.version + moved.movements,
        state = case when g.remaining_micros + moved.amount > 0 then 'active' when moved.expires then 'expired'
                     when moved.revokes then 'revoked' else 'exhausted' end
    from (select grant_id, sum(amount_micros)::bigint as amount, count(*)::integer as movements, bool_or(kind = 'expiry') as expires,
                 bool_or(kind = 'revocation') as revokes from inserted group by grant_id) moved
    where g.id = moved.grant_id and g.id = any(touched);
    return null;
end $$;
