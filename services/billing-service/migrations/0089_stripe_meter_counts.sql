-- What was counted for one meter that is kept at Stripe, in a short time: each meter and day is a statement of its own, so that one that takes
-- long, or fails, holds up no other. It takes the place of the function that counted for all at once, which was in no release.
drop function stripe_meter_counts(timestamptz, timestamptz);

-- By organization and hour: rollups and what was not added to them yet, together. One place, so that what is reported and what is compared
-- cannot disagree about it. Plans are made anew each time: how much lies in the time that is asked for decides which index is the right one.
create function stripe_meter_counts(mirror uuid, since timestamptz, until timestamptz)
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
        where m.name = s.meter_name and m.aggregation = s.aggregation
        group by m.organization_id, c.hour having s.aggregation <> 'max' or max(c.most) is not null;
    elsif s.source = 'meter' then
        return query
        select m.organization_id, c.hour, count(distinct c.value) * 10::numeric ^ s.decimals
        from meters m cross join lateral (
            select window_start as hour, value from meter_values where meter_id = m.id and window_start >= starts and window_start < ends
            union all select d.hour, value from meter_deltas d where meter_id = m.id and d.hour >= starts and d.hour < ends) c
        where m.name = s.meter_name and m.aggregation = s.aggregation
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

revoke all on function stripe_meter_counts from public;
grant execute on function stripe_meter_counts to billing_app;
