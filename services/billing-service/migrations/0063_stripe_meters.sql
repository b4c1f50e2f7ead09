-- Meters that are kept at Stripe too, and what was reported to them [B-66]. A report is written before its first try and under an
-- identifier that says what it is about, so that however often it is sent it counts once there; Stripe remembers identifiers for a day,
-- and these rows for ever.
create table stripe_meters (
    id              uuid        primary key,
    event_name      text        not null constraint stripe_meters_event_name_key unique,
    display_name    text        not null,
    -- Each organization's meter of a name, or what chat used: its price, or the part of it that went beyond the wallet.
    source          text        not null check (source in ('meter', 'chat_usage', 'chat_overage')),
    meter_name      text        check ((meter_name is not null) = (source = 'meter')),
    aggregation     text        check ((aggregation is not null) = (source = 'meter') and aggregation in ('sum', 'count', 'max', 'unique')),
    currency        text        check ((currency is not null) = (source <> 'meter')),
    -- Stripe takes whole numbers: a value is reported times ten to the power of this, rounded.
    decimals        integer     not null check (decimals between 0 and 6),
    -- How Stripe adds up: values of hours, or the last value of an hour.
    formula         text        not null check (formula in ('sum', 'last')),
    -- Hours from the one on and before the other are reported.
    since           timestamptz not null,
    ended_at        timestamptz,
    -- The meter at Stripe, once it is found or made there; or why it cannot be used.
    stripe_id       text,
    fault           text,
    attempts        integer     not null default 0,
    next_attempt_at timestamptz not null,
    created_at      timestamptz not null
);

create table stripe_meter_reports (
    identifier      text        primary key,
    stripe_meter_id uuid        not null references stripe_meters (id),
    organization_id uuid        not null,
    hour            timestamptz not null,
    -- The first report of an hour is 1; what came late or changed is a further one.
    version         integer     not null check (version > 0),
    value           bigint      not null,
    -- It makes up for one that Stripe lost, and is no more of what was counted.
    repair          boolean     not null default false,
    -- How it is dated at Stripe.
    dated           timestamptz not null,
    -- The customer that it was first sent for.
    customer_id     text,
    state           text        not null default 'pending' check (state in ('pending', 'sent', 'parked')),
    -- Why it was set aside.
    reason          text        check ((reason is not null) = (state = 'parked')),
    attempts        integer     not null default 0,
    next_attempt_at timestamptz not null,
    -- Somebody is sending it.
    claimed_until   timestamptz,
    -- The first try whose end is not known: from then on it may be there.
    doubt_at        timestamptz,
    sent_at         timestamptz,
    created_at      timestamptz not null,
    constraint stripe_meter_reports_version_key unique (stripe_meter_id, organization_id, hour, version)
);
create index stripe_meter_reports_unsent on stripe_meter_reports (next_attempt_at, identifier) where state = 'pending';
create index stripe_meter_reports_open on stripe_meter_reports (state, created_at) where state <> 'sent';
create index stripe_meter_reports_claimed on stripe_meter_reports (stripe_meter_id, organization_id) where claimed_until is not null;
create index stripe_meter_reports_dated on stripe_meter_reports (stripe_meter_id, dated);

-- What was counted for meters that are kept at Stripe, by organization and hour: rollups and what was not added to them yet, together. One
-- place, so that what is reported and what is compared cannot disagree about it.
create function stripe_meter_counts(since timestamptz, until timestamptz)
returns table (stripe_meter_id uuid, organization_id uuid, hour timestamptz, units numeric) language sql stable set search_path = public as $$
    with s as (
        -- A bare name would be the column: the bounds are named with their function.
        select id, source, meter_name, aggregation, currency, decimals,
            greatest(stripe_meter_counts.since, s.since) as since, least(stripe_meter_counts.until, s.ended_at) as until
        from stripe_meters s)
    select s.id, m.organization_id, c.hour,
        round(case s.aggregation when 'count' then sum(c.events) when 'max' then max(c.most) else sum(c.amount) end * 10::numeric ^ s.decimals)
    from s join meters m on m.name = s.meter_name and m.aggregation = s.aggregation
    cross join lateral (
        select window_start as hour, events, amount, most from meter_rollups
        where meter_id = m.id and grain = 'hour' and window_start >= s.since and window_start < s.until
        union all select d.hour, events, amount, most from meter_deltas d where meter_id = m.id and d.hour >= s.since and d.hour < s.until) c
    where s.source = 'meter' and s.aggregation <> 'unique'
    group by s.id, s.aggregation, s.decimals, m.organization_id, c.hour having s.aggregation <> 'max' or max(c.most) is not null
    union all
    select s.id, m.organization_id, c.hour, count(distinct c.value) * 10::numeric ^ s.decimals
    from s join meters m on m.name = s.meter_name and m.aggregation = s.aggregation
    cross join lateral (
        select window_start as hour, value from meter_values where meter_id = m.id and window_start >= s.since and window_start < s.until
        union all select d.hour, value from meter_deltas d where meter_id = m.id and d.hour >= s.since and d.hour < s.until) c
    where s.source = 'meter' and s.aggregation = 'unique'
    group by s.id, s.decimals, m.organization_id, c.hour
    union all
    select s.id, u.organization_id, u.hour, round(sum(u.price_micros))
    from s join (
        select organization_id, window_start as hour, currency, price_micros from usage_rollups where grain = 'hour' and window_start >= stripe_meter_counts.since
        union all select d.organization_id, d.hour, currency, price_micros from usage_deltas d where d.hour >= stripe_meter_counts.since) u
        on u.currency = s.currency and u.hour >= s.since and u.hour < s.until
    where s.source = 'chat_usage' group by s.id, u.organization_id, u.hour
    union all
    -- What requests took beyond the wallet, and what no lot was allowed to pay of them.
    select s.id, a.organization_id, date_trunc('hour', t.occurred_at, 'UTC'), -sum(e.amount_micros)
    from s join accounts a on a.kind = 'debt' and a.currency = s.currency
    join ledger_entries e on e.account_id = a.id and e.amount_micros < 0
    join ledger_transactions t on t.id = e.transaction_id and t.occurred_at >= s.since and t.occurred_at < s.until
        and (t.kind in ('settlement', 'late_settlement') or t.kind = 'shortfall' and t.external_key like 'burn:%')
    where s.source = 'chat_overage' group by s.id, a.organization_id, date_trunc('hour', t.occurred_at, 'UTC')
$$;

-- How an event is known at Stripe: by what it is about, and by nothing that differs from try to try.
create function stripe_meter_identifier(event_name text, organization_id uuid, hour timestamptz, version integer)
returns text language sql stable set search_path = public as $$
    select 'trivet-' || encode(sha256(convert_to(
        event_name || '|' || organization_id || '|' || extract(epoch from hour)::bigint || '|' || version, 'UTF8')), 'hex')
$$;

insert into stripe_turns (name, next_at) values ('meters', 'epoch'), ('meters-all', 'epoch');

revoke all on function stripe_meter_counts, stripe_meter_identifier from public;
grant execute on function stripe_meter_counts, stripe_meter_identifier to billing_app;
grant select, insert on stripe_meters, stripe_meter_reports to billing_app;
grant update (ended_at, stripe_id, fault, attempts, next_attempt_at) on stripe_meters to billing_app;
grant update (dated, customer_id, state, reason, attempts, next_attempt_at, claimed_until, doubt_at, sent_at) on stripe_meter_reports to billing_app;
