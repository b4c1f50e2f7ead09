-- The rules of the ledger, checked once for each statement instead of once for each row: postings come in batches of hundreds, and a query for
-- each of their entries took longer than all the rest. What is refused stays the same, under the same names.
--
-- None of these functions may ever read a whole table: a plan that was made while the tables were small is kept by a connection. So they
-- look everything up by its index.

create function await_seals() returns trigger language plpgsql security definer set search_path = public as $$
begin
    insert into ledger_unsealed (position) select position from inserted order by position;
    return null;
end $$;
drop trigger ledger_transactions_await_seal on ledger_transactions;
create trigger ledger_transactions_await_seal after insert on ledger_transactions referencing new table as inserted
    for each statement execute function await_seals();

-- Entries may only join transactions of the same database transaction (what was committed is closed), and come with all the others of
-- theirs in one statement: after it, each transaction that it wrote to is balanced in each currency and has two entries at least.
create function check_entries() returns trigger language plpgsql set search_path = public
    set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
declare
    found_id uuid;
begin
    select i.transaction_id into found_id from (select distinct transaction_id from inserted) i
    where not exists (select from ledger_transactions t where t.id = i.transaction_id and t.xmin = pg_current_xact_id()::xid) limit 1;
    if found then
        raise exception 'ledger transaction % is closed', found_id using errcode = 'check_violation', constraint = 'ledger_transactions_closed';
    end if;
    select c.transaction_id into found_id
    from (select e.transaction_id, count(*) as entries, sum(e.amount_micros) as total
          from (select distinct transaction_id from inserted) i join ledger_entries e on e.transaction_id = i.transaction_id
          join accounts a on a.id = e.account_id group by e.transaction_id, a.currency) c
    group by c.transaction_id having bool_or(c.total <> 0) or sum(c.entries) < 2 limit 1;
    if found then
        raise exception 'ledger transaction % is not balanced', found_id using errcode = 'check_violation', constraint = 'ledger_transactions_balanced';
    end if;
    return null;
end $$;
drop trigger ledger_entries_open on ledger_entries;
create trigger ledger_entries_open after insert on ledger_entries referencing new table as inserted
    for each statement execute function check_entries();

-- What is left for the end of the database transaction: that there are entries at all.
create or replace function check_balanced() returns trigger language plpgsql as $$
begin
    if not exists (select from ledger_entries where transaction_id = new.id) then
        raise exception 'ledger transaction % is not balanced', new.id using errcode = 'check_violation', constraint = 'ledger_transactions_balanced';
    end if;
    return null;
end $$;

-- Each entry's foreign keys were two more queries. check_entries finds the transaction, by the same database transaction that wrote it; the
-- account is found where its balance is moved; and neither is ever deleted.
create or replace function apply_entries() returns trigger language plpgsql security definer set search_path = public as $$
declare
    updated bigint;
begin
    -- In the order of locks that everybody keeps (src/ledger.rs).
    perform from accounts where id in (select account_id from inserted) order by organization_id nulls last, kind, currency for no key update;
    update accounts a set balance_micros = a.balance_micros + moved.amount
    from (select account_id, sum(amount_micros)::bigint as amount from inserted group by account_id) moved where a.id = moved.account_id;
    get diagnostics updated = row_count;
    if updated <> (select count(distinct account_id) from inserted) then
        raise exception 'an entry has no account' using errcode = 'foreign_key_violation', constraint = 'ledger_entries_account_id_fkey';
    end if;
    return null;
end $$;
alter table ledger_entries drop constraint ledger_entries_transaction_id_fkey;
alter table ledger_entries drop constraint ledger_entries_account_id_fkey;
create trigger accounts_kept before delete or truncate on accounts for each statement execute function refuse_change();

alter function apply_entries() set enable_hashjoin = off;
alter function apply_entries() set enable_mergejoin = off;
alter function apply_entries() set enable_seqscan = off;
alter function check_within_limit() set enable_hashjoin = off;
alter function check_within_limit() set enable_mergejoin = off;
alter function check_within_limit() set enable_seqscan = off;
alter function apply_movements() set enable_hashjoin = off;
alter function apply_movements() set enable_mergejoin = off;
alter function apply_movements() set enable_seqscan = off;

-- Rows that are updated again and again keep room beside them: then an update writes no index.
alter table accounts set (fillfactor = 50);
alter table leases set (fillfactor = 50);
alter table grants set (fillfactor = 70);
