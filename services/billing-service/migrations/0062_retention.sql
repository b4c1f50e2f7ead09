-- Retention by configuration: whole months (UTC) of metered events go when nobody can need them any more, as those of usage do. Their sums
-- stay in the rollups, and a rebuild leaves these months alone.
create table metered_retired (
    month    date    primary key,
    -- How many were taken out.
    events   bigint  not null,
    finished boolean not null
);

-- From here on events are kept, or will be: what is earlier stands in the rollups alone.
create function metered_since() returns timestamptz language sql stable set search_path = public as $$
    select coalesce((max(month) + interval '1 month') at time zone 'UTC', '-infinity') from metered_retired
$$;

-- Takes out a batch of the events that count in months which end at or before an instant; returns how many. The months are noted first, so
-- that no count ever sees a part of one. While something of them is not in the rollups, nothing is taken out.
create function metered_events_retire(before timestamptz, most integer) returns bigint
language plpgsql security definer set search_path = public as $$
declare
    until timestamptz := date_trunc('month', before, 'UTC');
    last_month date := (until at time zone 'UTC' - interval '1 month')::date;
    taken bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('metered_retired', 0));
    if exists (select from metered_retired where month >= last_month and finished)
        or exists (select from meter_deltas where hour < until) then
        return 0;
    end if;
    insert into metered_retired (month, events, finished) values (last_month, 0, false) on conflict do nothing;
    delete from metered_events where ctid = any (array(select ctid from metered_events where counted_at < until limit most));
    get diagnostics taken = row_count;
    update metered_retired set events = events + taken, finished = taken < most where month = last_month;
    return taken;
end $$;

-- As in 0042, but a month of usage stays, and all later ones with it, while something of it is not in the rollups or a hold that was made
-- before its end is open: what is paid from it is still to be recorded, and may end in that month.
create or replace function usage_partitions_retire(before timestamptz, detach boolean) returns setof text
language plpgsql security definer set search_path = public as $$
declare
    partition text;
    month date;
    month_end timestamptz;
begin
    perform pg_advisory_xact_lock(hashtextextended('usage_partitions', 0));
    for partition in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'usage_events'::regclass and c.relname ~ '^usage_events_[0-9]{4}_[0-9]{2}$' order by 1
    loop
        month := to_date(right(partition, 7), 'YYYY_MM');
        month_end := (month + interval '1 month') at time zone 'UTC';
        exit when month_end > before
            or exists (select from usage_deltas where hour < month_end)
            or exists (select from spend_deltas where day < month_end)
            or exists (select from leases where state <> 'closed' and opened_at < month_end)
            or exists (select from reservations where state = 'held' and created_at < month_end);
        execute format('alter table usage_events detach partition %I', partition);
        execute format('insert into usage_retired select %L, currency, count(*), sum(price_micros), sum(cost_micros) from %I group by currency', month, partition);
        if not detach then
            execute format('drop table %I', partition);
        end if;
        return next partition;
    end loop;
end $$;

revoke all on function metered_events_retire, metered_since from public;
grant execute on function metered_events_retire, metered_since to billing_app;
grant select on metered_retired to billing_app;
