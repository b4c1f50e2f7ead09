-- The accounts of the house belong to everybody: a transaction that has moved one makes all others wait until it ends. What a transaction moves
-- on them is therefore kept beside, and moved at its end, in one order for all. Nobody else ever sees a row of this table: whoever wrote one
-- takes it away before it commits, so what a crash loses of it was never there.
create unlogged table house_moves (
    transaction    xid8     primary key,
    account_ids    uuid[]   not null,
    amounts_micros bigint[] not null,
    constraint house_moves_pairs check (cardinality(account_ids) = cardinality(amounts_micros))
);
-- Each row is a dead one a moment later.
alter table house_moves set (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

create function move_house() returns trigger language plpgsql security definer set search_path = public set enable_seqscan = off as $$
declare
    moves house_moves;
begin
    -- As the row is by now: later postings of the transaction added to it.
    delete from house_moves where transaction = new.transaction returning * into strict moves;
    perform from accounts where id = any(moves.account_ids) order by kind, currency for no key update;
    update accounts a set balance_micros = a.balance_micros + moved.amount
    from (select id, sum(amount)::bigint as amount from unnest(moves.account_ids, moves.amounts_micros) as move (id, amount) group by id) moved
    where a.id = moved.id and a.id = any(moves.account_ids);
    return null;
end $$;
create constraint trigger house_moves_at_commit after insert on house_moves deferrable initially deferred
    for each row execute function move_house();

create or replace function apply_entries() returns trigger language plpgsql security definer set search_path = public set enable_seqscan = off as $$
declare
    touched uuid[] := array(select distinct account_id from inserted);
    house uuid[] := array(select id from accounts where id = any(touched) and organization_id is null);
    updated bigint;
begin
    -- In the order of locks that everybody keeps (src/ledger.rs).
    perform from accounts where id = any(touched) and organization_id is not null order by organization_id, kind, currency for no key update;
    update accounts a set balance_micros = a.balance_micros + moved.amount
    from (select account_id, sum(amount_micros)::bigint as amount from inserted group by account_id) moved
    where a.id = moved.account_id and a.id = any(touched) and a.organization_id is not null;
    get diagnostics updated = row_count;
    if updated + cardinality(house) <> cardinality(touched) then
        raise exception 'an entry has no account' using errcode = 'foreign_key_violation', constraint = 'ledger_entries_account_id_fkey';
    end if;
    if cardinality(house) > 0 then
        insert into house_moves as m (transaction, account_ids, amounts_micros)
        select pg_current_xact_id(), array_agg(moved.account_id), array_agg(moved.amount)
        from (select account_id, sum(amount_micros)::bigint as amount from inserted where account_id = any(house) group by account_id) moved
        on conflict (transaction) do update
        set account_ids = m.account_ids || excluded.account_ids, amounts_micros = m.amounts_micros || excluded.amounts_micros;
    end if;
    return null;
end $$;

-- What waits before a wish is looked up by its subject, without adding up all that was sent.
create index intents_unsent_of_subject on intents (subject, position) where sent_at is null;
