-- A double-entry ledger. A transaction has at least two entries and they sum to zero for each currency; entries are only ever
-- inserted; the balance of an account always equals the sum of its entries. The database holds these rules itself, so that no
-- bug of a service can break them: the running role may insert and read, and the triggers work as the owner.
create table accounts (
    id              uuid   primary key,
    -- Null for the house's own accounts.
    organization_id uuid,
    kind            text   not null check (kind in ('wallet', 'holds', 'debt', 'revenue', 'provider_cost', 'provider_payable', 'promotion')),
    currency        text   not null check (currency ~ '^[A-Z]{3}$'),
    balance_micros  bigint not null default 0,
    constraint accounts_owner_kind_currency_key unique nulls not distinct (organization_id, kind, currency),
    -- What a customer can spend is never below zero: more than that is debt, on an account of its own.
    constraint accounts_not_overdrawn check (kind not in ('wallet', 'holds') or balance_micros >= 0),
    constraint accounts_debt_is_owed check (kind <> 'debt' or balance_micros <= 0)
);

create table ledger_transactions (
    id              uuid        primary key,
    kind            text        not null,
    -- The business fact that is posted, once: the request of a settlement, the organization of a signup grant.
    external_key    text        not null,
    organization_id uuid,
    occurred_at     timestamptz not null,
    constraint ledger_transactions_fact_key unique (kind, external_key)
);
create index ledger_transactions_organization on ledger_transactions (organization_id, occurred_at desc, id desc);

create table ledger_entries (
    id             bigint generated always as identity primary key,
    transaction_id uuid   not null references ledger_transactions (id),
    account_id     uuid   not null references accounts (id),
    amount_micros  bigint not null check (amount_micros <> 0)
);
create index ledger_entries_transaction_id on ledger_entries (transaction_id);
create index ledger_entries_account_id on ledger_entries (account_id);

create function apply_entry() returns trigger language plpgsql security definer set search_path = public as $$
begin
    update accounts set balance_micros = balance_micros + new.amount_micros where id = new.account_id;
    return null;
end $$;
create trigger ledger_entries_apply after insert on ledger_entries for each row execute function apply_entry();

create function check_balanced() returns trigger language plpgsql as $$
begin
    if exists (
        select from ledger_entries e join accounts a on a.id = e.account_id
        where e.transaction_id = new.id group by a.currency having sum(e.amount_micros) <> 0
    ) or (select count(*) from ledger_entries where transaction_id = new.id) < 2 then
        raise exception 'ledger transaction % is not balanced', new.id using errcode = 'check_violation', constraint = 'ledger_transactions_balanced';
    end if;
    return null;
end $$;
create constraint trigger ledger_transactions_balanced after insert on ledger_transactions
    deferrable initially deferred for each row execute function check_balanced();

-- An entry may only join a transaction of the same database transaction: what was committed is closed.
create function check_open() returns trigger language plpgsql as $$
begin
    if not exists (select from ledger_transactions t where t.id = new.transaction_id and t.xmin = pg_current_xact_id()::xid) then
        raise exception 'ledger transaction % is closed', new.transaction_id using errcode = 'check_violation', constraint = 'ledger_transactions_closed';
    end if;
    return new;
end $$;
create trigger ledger_entries_open before insert on ledger_entries for each row execute function check_open();

create table wallets (
    organization_id uuid        primary key,
    currency        text        not null check (currency ~ '^[A-Z]{3}$'),
    created_at      timestamptz not null
);

-- `update` on accounts is for row locks only: no column may be changed by the running role.
grant select, insert on accounts, ledger_transactions, ledger_entries, wallets to billing_app;
grant update (id) on accounts to billing_app;
