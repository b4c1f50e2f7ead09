-- A meter counts events that came before it, and these may be millions: they are counted in batches, in the order of their keys. Until that is
-- done (`is_complete`), an event counts in it when its key is not beyond the last one that was counted; the others are to come.
-- Locks: an organization has 200 meters at most, so there are few rows to check.
alter table meters add column is_complete boolean not null default true, add column counted_source text, add column counted_id text,
    add column next_at timestamptz,
    add constraint meters_counted_check check (is_complete or (counted_source is not null and counted_id is not null));
create index meters_incomplete on meters (next_at nulls first, created_at) where not is_complete;
grant update (is_complete, counted_source, counted_id, next_at) on meters to billing_app;

create or replace view meter_contributions as
select e.organization_id, e.source, e.id, m.id as meter_id, date_trunc('hour', e.counted_at, 'UTC') as hour,
    (select coalesce(jsonb_object_agg(g.name, case when g.longest > 256 or g.total > 900 then left(g.value, 225 / g.count) else g.value end), '{}')
     from (select v.name, v.value, count(*) over ()::integer as count, max(octet_length(v.value)) over () as longest,
             sum(octet_length(v.value)) over () as total
           from (select g ->> 'name' as name, e.data #>> array(select jsonb_array_elements_text(g -> 'path')) as value
                 from jsonb_array_elements(m.group_by) g) v) g) as groups,
    case when m.aggregation in ('sum', 'max') and e.data #>> m.value_path ~ '^[0-9]+([.][0-9]+)?([eE][+-]?[0-9]{1,2})?$'
        then (e.data #>> m.value_path)::numeric end as amount,
    case when m.aggregation = 'unique' then left(e.data #>> m.value_path, 256) end as value
from metered_events e join meters m on m.organization_id = e.organization_id and m.event_type = e.type
where not exists (
    select from jsonb_array_elements(m.filters) f
    where not coalesce((f -> 'values') ? (e.data #>> array(select jsonb_array_elements_text(f -> 'path'))), false))
    and (m.is_complete or (e.source, e.id) <= (m.counted_source, m.counted_id));

-- As in 0062; and no event goes that a meter is still to count.
create or replace function metered_events_retire(before timestamptz, most integer) returns bigint
language plpgsql security definer set search_path = public as $$
declare
    until timestamptz := date_trunc('month', before, 'UTC');
    last_month date := (until at time zone 'UTC' - interval '1 month')::date;
    taken bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('metered_retired', 0));
    if exists (select from metered_retired where month >= last_month and finished)
        or exists (select from meter_deltas where hour < until)
        or exists (select from meters where not is_complete) then
        return 0;
    end if;
    insert into metered_retired (month, events, finished) values (last_month, 0, false) on conflict do nothing;
    delete from metered_events where ctid = any (array(select ctid from metered_events where counted_at < until limit most));
    get diagnostics taken = row_count;
    update metered_retired set events = events + taken, finished = taken < most where month = last_month;
    return taken;
end $$;

-- As in 0089; and nothing is reported to Stripe of a meter that is still to count some of it.
create or replace function stripe_meter_counts(mirror uuid, since timestamptz, until timestamptz)
returns table (organization_id uuid, hour timestamptz, units numeric) language plpgsql stable
set search_path = public set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
    s stripe_meters;
    starts timestamptz;
    ends timestamptz;
    low uuid;
    high uuid;
begin
    select * into strict s from stripe_meters where id = mirror;
    starts := greatest(since, s.since);
    ends := least(until, s.ended_at);
    if s.source = 'meter' and s.aggregation <> 'unique' then
        return query
        select m.organization_id, c.hour,
            round(case s.aggregation when 'count' then sum(c.events) when 'max' then max(c.most) else sum(c.amount) end * 10::numeric ^ s.decimals)
        from meters m cross join lateral (
            select window_start as hour, events, amount, most from meter_rollups
            where meter_id = m.id and grain = 'hour' and window_start >= starts and window_start < ends
            union all select d.hour, events, amount, most from meter_deltas d where meter_id = m.id and d.hour >= starts and d.hour < ends) c
        where m.name = s.meter_name and m.aggregation = s.aggregation and m.is_complete
        group by m.organization_id, c.hour having s.aggregation <> 'max' or max(c.most) is not null;
    elsif s.source = 'meter' then
        return query
        select m.organization_id, c.hour, count(distinct c.value) * 10::numeric ^ s.decimals
        from meters m cross join lateral (
            select window_start as hour, value from meter_values where meter_id = m.id and window_start >= starts and window_start < ends
            union all select d.hour, value from meter_deltas d where meter_id = m.id and d.hour >= starts and d.hour < ends) c
        where m.name = s.meter_name and m.aggregation = s.aggregation and m.is_complete
        group by m.organization_id, c.hour;
    elsif s.source = 'chat_usage' then
        return query
        select u.organization_id, u.hour, round(sum(u.price_micros))
        from (
            select organization_id, window_start as hour, currency, price_micros from usage_rollups
            where grain = 'hour' and window_start >= starts and window_start < ends
            union all select d.organization_id, d.hour, currency, price_micros from usage_deltas d where d.hour >= starts and d.hour < ends) u
        where u.currency = s.currency group by u.organization_id, u.hour;
    else
        -- An id of the ledger begins with the milliseconds at which it was made (UUIDv7), and these postings are dated when they are made: entries
        -- of other times are not read, however many there are. The hour is for two clocks that differ.
        low := (lpad(to_hex((extract(epoch from starts - interval '1 hour') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
        high := (lpad(to_hex((extract(epoch from ends + interval '1 hour') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
        -- What requests took beyond the wallet, and what no lot was allowed to pay of them.
        return query
        select a.organization_id, date_trunc('hour', t.occurred_at, 'UTC'), -sum(e.amount_micros)
        from ledger_entries e join accounts a on a.id = e.account_id and a.kind = 'debt' and a.currency = s.currency
        join ledger_transactions t on t.id = e.transaction_id and t.occurred_at >= starts and t.occurred_at < ends
            and (t.kind in ('settlement', 'late_settlement') or t.kind = 'shortfall' and t.external_key like 'burn:%')
        where e.transaction_id >= low and e.transaction_id < high and t.id >= low and t.id < high and e.amount_micros < 0
        group by a.organization_id, date_trunc('hour', t.occurred_at, 'UTC');
    end if;
end $$;
