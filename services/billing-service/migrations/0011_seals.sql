-- Tamper evidence: transactions are sealed in batches by a chain of hashes, so that a row which is changed later by whoever owns the
-- database is found and named. What waits is a queue of its own and not a range of positions: transactions commit in another order than
-- that of their positions, and positions of those that were rolled back never come. Nothing here refers to transaction ids of Postgres,
-- which begin anew when a dump is restored.
create unique index ledger_transactions_position on ledger_transactions (position);

create table ledger_unsealed (
    position bigint primary key
);
insert into ledger_unsealed (position) select position from ledger_transactions;

create table ledger_seals (
    -- One after the other, without gaps: two seals cannot follow the same one.
    id            bigint      primary key,
    from_position bigint      not null,
    to_position   bigint      not null,
    transactions  bigint      not null check (transactions > 0),
    previous_hash bytea       not null check (length(previous_hash) = 32),
    hash          bytea       not null check (length(hash) = 32),
    sealed_at     timestamptz not null
);

-- Without a foreign key to the transactions: a row that outlives its transaction says which one is gone.
create table ledger_sealed (
    position bigint primary key,
    seal_id  bigint not null references ledger_seals (id),
    -- Of the transaction and its entries as they were when they were sealed.
    digest   bytea  not null check (length(digest) = 32)
);
create unique index ledger_sealed_seal on ledger_sealed (seal_id, position);

create function await_seal() returns trigger language plpgsql security definer set search_path = public as $$
begin
    insert into ledger_unsealed (position) values (new.position);
    return null;
end $$;
create trigger ledger_transactions_await_seal after insert on ledger_transactions for each row execute function await_seal();

create trigger ledger_seals_append_only before update or delete or truncate on ledger_seals
    for each statement execute function refuse_change();
create trigger ledger_sealed_append_only before update or delete or truncate on ledger_sealed
    for each statement execute function refuse_change();

-- A transaction with its entries, in one row, in the order they were written.
create view ledger_journal as
select t.position, t.id, t.kind, t.external_key, t.organization_id, t.occurred_at,
       coalesce(e.accounts, '{}') as accounts, coalesce(e.owners, '{}') as owners, coalesce(e.kinds, '{}') as kinds,
       coalesce(e.currencies, '{}') as currencies, coalesce(e.amounts, '{}') as amounts
from ledger_transactions t
left join lateral (
    select array_agg(a.id order by e.id) as accounts, array_agg(a.organization_id order by e.id) as owners,
           array_agg(a.kind order by e.id) as kinds, array_agg(a.currency order by e.id) as currencies,
           array_agg(e.amount_micros order by e.id) as amounts
    from ledger_entries e join accounts a on a.id = e.account_id where e.transaction_id = t.id
) e on true;

grant select, insert on ledger_seals, ledger_sealed to billing_app;
grant select, delete on ledger_unsealed to billing_app;
grant select on ledger_journal to billing_app;
