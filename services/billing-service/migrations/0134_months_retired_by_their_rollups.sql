-- What a month that goes comes to is said by its rollups. Its rows were read for that, hundreds of millions of them, while nobody could write usage,
-- until the time of the statement was over, and each hour anew. As in 0062 a month stays, and all later ones with it, while something of it is not
-- in the rollups or a hold of before its end is open; so the rollups are what its rows are. They are added up before anybody has to wait. One month
-- each time; how long it may take is for whoever calls to say, and how long others may wait for it is said here.
--
-- A month that is not kept is only named so, and dropped by the function below: who drops it needs the table of rates for himself, and whoever posts
-- usage has read that when he comes to the table of usage. With both in one transaction each would wait for the other.
create or replace function usage_partitions_retire(before timestamptz, detach boolean) returns setof text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    partition text;
    month date;
    month_start timestamptz;
    month_end timestamptz;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('usage_partitions_retire', 0)) then
        return;
    end if;
    select c.relname into partition from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'usage_events'::regclass and c.relname ~ '^usage_events_[0-9]{4}_[0-9]{2}$' order by 1 limit 1;
    month := to_date(right(partition, 7), 'YYYY_MM');
    month_start := month::timestamp at time zone 'UTC';
    month_end := (month + interval '1 month') at time zone 'UTC';
    if partition is null or month_end > before then
        return;
    end if;
    -- Until this is over nobody adds to the rollups (src/rollups.rs has the number) or makes them anew: what comes to be of the month after they
    -- were added up here is still a delta when that is looked for.
    perform pg_advisory_xact_lock(125822885983600 + 1);
    lock table usage_rollups in row exclusive mode;
    if exists (select from usage_deltas where hour < month_end)
        or exists (select from spend_deltas where day < month_end)
        or exists (select from leases where state <> 'closed' and opened_at < month_end)
        or exists (select from reservations where state = 'held' and created_at < month_end) then
        return;
    end if;
    insert into usage_retired (month, currency, requests, price_micros, cost_micros)
    select month, currency, sum(requests), sum(price_micros), sum(cost_micros) from usage_rollups
    where grain = 'day' and window_start >= month_start and window_start < month_end
    group by currency having (sum(requests), sum(price_micros), sum(cost_micros)) <> (0, 0, 0);
    -- From here on whoever writes or reads usage waits; so this waits no longer than a second for those who came before.
    perform pg_advisory_xact_lock(hashtextextended('usage_partitions', 0));
    perform set_config('lock_timeout', '1s', true);
    lock table only usage_events in access exclusive mode;
    if exists (select from usage_deltas where hour < month_end) then
        raise serialization_failure using message = format('usage of %s changed while it was added up', to_char(month, 'YYYY-MM'));
    end if;
    execute format('alter table usage_events detach partition %I', partition);
    if not detach then
        execute format('alter table %I rename to %I', partition, 'usage_gone_' || right(partition, 7));
    end if;
    return next partition;
end $$;

-- Drops a month that is not kept; returns what it was called, and nothing when there is none.
create function usage_partitions_drop() returns setof text
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '1s' as $$
declare
    gone text;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('usage_partitions_retire', 0)) then
        return;
    end if;
    select relname into gone from pg_class
    where relnamespace = 'public'::regnamespace and relkind = 'r' and relname ~ '^usage_gone_[0-9]{4}_[0-9]{2}$' order by 1 limit 1;
    if gone is null then
        return;
    end if;
    -- Before the table of rates, for which others would wait too: a backup that keeps it from being dropped has this one as well.
    execute format('lock table %I in access exclusive mode', gone);
    execute format('drop table %I', gone);
    return next gone;
end $$;

revoke all on function usage_partitions_drop() from public;
grant execute on function usage_partitions_drop() to billing_app;
