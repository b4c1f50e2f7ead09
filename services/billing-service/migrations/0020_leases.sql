-- A lease is a hold from which many requests are paid without asking: its remainder lives in Redis, and here is how much of it the
-- ledger still holds. An organization has at most one that can be filled; those before it wait for their last requests.
create table leases (
    id              uuid        primary key,
    organization_id uuid        not null,
    currency        text        not null check (currency ~ '^[A-Z]{3}$'),
    -- Rises with each lease of an organization: an older one never comes back over a newer one.
    epoch           bigint      not null,
    -- The data of Redis it was opened on; when that is gone, nobody knows what was taken from it.
    instance        text        not null,
    state           text        not null check (state in ('opening', 'open', 'closing', 'draining', 'lost', 'closed')),
    -- All that was put into it, and what of that is still held.
    funded_micros   bigint      not null check (funded_micros > 0),
    held_micros     bigint      not null check (held_micros >= 0),
    fundings        integer     not null,
    low_micros      bigint      not null,
    opened_at       timestamptz not null,
    funded_at       timestamptz not null,
    -- When it ends by itself unless it is filled again.
    deadline        timestamptz not null,
    -- When none of its requests can be in flight any more.
    drained_at      timestamptz,
    closed_at       timestamptz,
    constraint leases_epoch_key unique (organization_id, epoch)
);
create unique index leases_active on leases (organization_id) where state in ('opening', 'open');
create index leases_unfinished on leases (organization_id) where state <> 'closed';
create index leases_deadline on leases (deadline) where state in ('opening', 'open');
create index leases_ending on leases (state) where state in ('closing', 'draining', 'lost');

grant select, insert on leases to billing_app;
grant update (state, funded_micros, held_micros, fundings, low_micros, funded_at, deadline, drained_at, closed_at) on leases to billing_app;

-- The lease that a request was paid from; rows of single holds have none.
alter table usage_events add column lease_id uuid references leases (id);

-- Batches of settlements write to the same few accounts of the house: one update for each account and statement instead of one for
-- each entry.
drop trigger ledger_entries_apply on ledger_entries;
create function apply_entries() returns trigger language plpgsql security definer set search_path = public as $$
begin
    -- In the order of locks that everybody keeps (src/ledger.rs).
    perform from accounts where id in (select account_id from inserted) order by organization_id nulls last, kind, currency for no key update;
    update accounts a set balance_micros = a.balance_micros + moved.amount
    from (select account_id, sum(amount_micros)::bigint as amount from inserted group by account_id) moved where a.id = moved.account_id;
    return null;
end $$;
create trigger ledger_entries_apply after insert on ledger_entries referencing new table as inserted
    for each statement execute function apply_entries();
drop function apply_entry();
