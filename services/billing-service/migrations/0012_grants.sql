-- Credit in lots: where it came from, what it may pay for, until when. The lots of an organization are the sub-ledger of its wallet and
-- holds: their remainders always sum to both together. A lot is never changed; what it has left follows from its movements, which are
-- only ever inserted.
create table grants (
    id               uuid        primary key,
    position         bigint      generated always as identity,
    organization_id  uuid        not null references wallets (organization_id),
    source           text        not null check (source in ('signup', 'plan', 'purchase', 'promotion', 'refund', 'adjustment')),
    -- The fact that gave it, once: a paid Stripe object, an operator's key.
    external_key     text        not null,
    amount_micros    bigint      not null check (amount_micros > 0),
    currency         text        not null check (currency ~ '^[A-Z]{3}$'),
    -- Lower burns first.
    priority         integer     not null,
    -- It may pay before this instant and not at it.
    expires_at       timestamptz,
    -- What it may pay for, as JSON arrays of names; null is everything.
    models           jsonb       check (jsonb_typeof(models) = 'array'),
    features         jsonb       check (jsonb_typeof(features) = 'array'),
    reason           text,
    created_at       timestamptz not null,
    remaining_micros bigint      not null default 0,
    version          integer     not null default 0,
    state            text        not null default 'active' check (state in ('active', 'exhausted', 'expired', 'revoked')),
    constraint grants_fact_key unique (source, external_key),
    constraint grants_remaining check (remaining_micros between 0 and amount_micros)
);
-- Not over what is left: an update of a column in an index costs an entry in every index, and this one is updated by each settlement.
create index grants_active on grants (organization_id) where state = 'active';
create index grants_due on grants (expires_at) where state = 'active' and expires_at is not null;
create unique index grants_organization on grants (organization_id, position desc);

create table grant_movements (
    id            bigint      generated always as identity primary key,
    grant_id      uuid        not null references grants (id),
    kind          text        not null check (kind in ('grant', 'burn', 'repayment', 'expiry', 'revocation', 'transfer', 'refund', 'dispute', 'adjustment', 'unwind')),
    external_key  text        not null,
    amount_micros bigint      not null check (amount_micros <> 0),
    -- What an unwinding gives back.
    reverses      bigint      references grant_movements (id),
    occurred_at   timestamptz not null,
    constraint grant_movements_fact_key unique nulls not distinct (external_key, kind, grant_id, reverses)
);
create index grant_movements_reverses on grant_movements (reverses) where reverses is not null;

-- Money that was given back for a lot, or is disputed: never more than the lot.
create table grant_takebacks (
    id            bigint      generated always as identity primary key,
    grant_id      uuid        not null references grants (id),
    kind          text        not null check (kind in ('refund', 'dispute')),
    external_key  text        not null,
    amount_micros bigint      not null check (amount_micros > 0),
    occurred_at   timestamptz not null,
    constraint grant_takebacks_fact_key unique (kind, external_key)
);
create index grant_takebacks_grant on grant_takebacks (grant_id);

-- One update for each lot and statement: settlements come in batches.
create function apply_movements() returns trigger language plpgsql security definer set search_path = public as $$
begin
    update grants g set remaining_micros = g.remaining_micros + moved.amount, version = g.version + moved.movements,
        state = case when g.remaining_micros + moved.amount > 0 then 'active' when moved.expires then 'expired'
                     when moved.revokes then 'revoked' else 'exhausted' end
    from (select grant_id, sum(amount_micros)::bigint as amount, count(*)::integer as movements, bool_or(kind = 'expiry') as expires,
                 bool_or(kind = 'revocation') as revokes from inserted group by grant_id) moved
    where g.id = moved.grant_id;
    return null;
end $$;
create trigger grant_movements_apply after insert on grant_movements referencing new table as inserted
    for each statement execute function apply_movements();

create function refuse_grant_change() returns trigger language plpgsql as $$
begin
    raise exception 'grant % cannot become another', old.id using errcode = 'check_violation', constraint = 'grants_fixed';
end $$;
create trigger grants_fixed before update on grants for each row
    when ((old.id, old.position, old.organization_id, old.source, old.external_key, old.amount_micros, old.currency, old.priority, old.expires_at, old.models, old.features, old.created_at)
          is distinct from (new.id, new.position, new.organization_id, new.source, new.external_key, new.amount_micros, new.currency, new.priority, new.expires_at, new.models, new.features, new.created_at))
    execute function refuse_grant_change();
create trigger grants_kept before delete or truncate on grants for each statement execute function refuse_change();
create trigger grant_movements_append_only before update or delete or truncate on grant_movements
    for each statement execute function refuse_change();
create trigger grant_takebacks_append_only before update or delete or truncate on grant_takebacks
    for each statement execute function refuse_change();

grant select on grants to billing_app;
grant insert (id, organization_id, source, external_key, amount_micros, currency, priority, expires_at, models, features, reason, created_at) on grants to billing_app;
grant select, insert on grant_movements, grant_takebacks to billing_app;

-- What organizations have when lots begin: one lot each, of the credit they signed up with.
insert into grants (id, organization_id, source, external_key, amount_micros, currency, priority, created_at)
select gen_random_uuid(), w.organization_id, 'signup', 'org_' || replace(w.organization_id::text, '-', ''), sum(a.balance_micros), w.currency, 100, w.created_at
from wallets w join accounts a on a.organization_id = w.organization_id and a.kind in ('wallet', 'holds')
group by w.organization_id having sum(a.balance_micros) > 0;
insert into grant_movements (grant_id, kind, external_key, amount_micros, occurred_at)
select id, 'grant', external_key, amount_micros, created_at from grants;
