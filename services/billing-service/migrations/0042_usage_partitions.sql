-- Usage by month: old months can be dropped or archived whole, and the indexes that are written to stay small.
--
-- A key of a partitioned table must contain what it is partitioned by, so the key of usage_events cannot say that a request is in
-- it once. usage_requests says it: every inserted request is claimed there in the same statement, and it stays when its month is
-- dropped. A request is settled once, for ever [B-55]. (When an abandoned row is replaced it may move to another month; that
-- is an update and claims nothing.) Who inserts a request twice breaks usage_requests_pkey.
--
-- The same statement adds what it changed to usage_deltas, from which the rollups are made [B-61].

-- Everything that belongs to the table, whichever migration made it, so that the new one has it too.
create temporary table kept on commit drop as
select 1 as step, format('alter table usage_events add constraint %I %s', conname, pg_get_constraintdef(oid)) as statement
from pg_constraint where conrelid = 'usage_events'::regclass and contype = 'f'
union all select 2, pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'usage_events'::regclass and not tgisinternal
union all select 3, indexdef from pg_indexes where schemaname = 'public' and tablename = 'usage_events' and indexname <> 'usage_events_pkey'
union all select distinct 4, format('grant %s on usage_events to %I', privilege_type, grantee) from information_schema.table_privileges
    where table_schema = 'public' and table_name = 'usage_events' and grantee <> current_user
union all select distinct 4, format('grant update (%I) on usage_events to %I', column_name, grantee) from information_schema.column_privileges
    where table_schema = 'public' and table_name = 'usage_events' and privilege_type = 'UPDATE' and grantee <> current_user;

alter table usage_events rename to usage_events_whole;
create table usage_events (like usage_events_whole including defaults including constraints) partition by range (ended_at);
-- What has no month yet. The job that makes months moves it there.
create table usage_events_default partition of usage_events default;

-- Makes months (UTC) from the one of an instant on; returns how many were missing.
create function usage_partitions_create(start timestamptz, months integer) returns integer
language plpgsql security definer set search_path = public as $$
declare
    first_day timestamp := date_trunc('month', start at time zone 'UTC');
    begins timestamptz;
    ends timestamptz;
    partition text;
    made integer := 0;
begin
    perform pg_advisory_xact_lock(hashtextextended('usage_partitions', 0));
    for n in 0 .. months - 1 loop
        begins := (first_day + make_interval(months => n)) at time zone 'UTC';
        ends := (first_day + make_interval(months => n + 1)) at time zone 'UTC';
        partition := 'usage_events_' || to_char(begins at time zone 'UTC', 'YYYY_MM');
        continue when to_regclass(partition) is not null;
        execute format('create table %I (like usage_events including all)', partition);
        -- Who writes or reads meanwhile would still know the months of before: a row of this one would be refused, or not seen. Short,
        -- and once a month, since months are made before they begin.
        lock table usage_events in access exclusive mode;
        execute format('with moved as (delete from usage_events_default where ended_at >= %L and ended_at < %L returning *) insert into %I select * from moved',
            begins, ends, partition);
        execute format('alter table usage_events attach partition %I for values from (%L) to (%L)', partition, begins, ends);
        made := made + 1;
    end loop;
    return made;
end $$;

-- What was dropped or archived came to.
create table usage_retired (
    month        date    not null,
    currency     text    not null,
    requests     bigint  not null,
    price_micros numeric not null,
    cost_micros  numeric not null,
    primary key (month, currency)
);

-- Takes whole months that end at or before an instant out of the table; returns their names. Detached ones stay as tables.
create function usage_partitions_retire(before timestamptz, detach boolean) returns setof text
language plpgsql security definer set search_path = public as $$
declare
    partition text;
    month date;
begin
    perform pg_advisory_xact_lock(hashtextextended('usage_partitions', 0));
    for partition in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'usage_events'::regclass and c.relname ~ '^usage_events_[0-9]{4}_[0-9]{2}$' order by 1
    loop
        month := to_date(right(partition, 7), 'YYYY_MM');
        continue when (month + interval '1 month') at time zone 'UTC' > before;
        execute format('alter table usage_events detach partition %I', partition);
        execute format('insert into usage_retired select %L, currency, count(*), sum(price_micros), sum(cost_micros) from %I group by currency', month, partition);
        if not detach then
            execute format('drop table %I', partition);
        end if;
        return next partition;
    end loop;
end $$;

select usage_partitions_create(
    coalesce((select min(ended_at) from usage_events_whole), now()),
    12 * (extract(year from now()) - extract(year from coalesce((select min(ended_at) from usage_events_whole), now())))::integer
      + (extract(month from now()) - extract(month from coalesce((select min(ended_at) from usage_events_whole), now())))::integer + 4);
insert into usage_events select * from usage_events_whole;

create table usage_requests (request_id uuid primary key);
insert into usage_requests select request_id from usage_events_whole;
drop table usage_events_whole;
alter table usage_events add constraint usage_events_pkey primary key (request_id, ended_at);

do $$
declare
    statement text;
begin
    for statement in select k.statement from kept k order by k.step, k.statement loop
        execute statement;
    end loop;
end $$;
-- All rows of the table by time, for exports.
create index usage_events_ended_at on usage_events (ended_at, request_id);

-- What was not yet added to the rollups. Only ever inserted and taken: no two writers meet on a row.
create table usage_deltas (
    id                    bigint      generated always as identity primary key,
    organization_id       uuid        not null,
    hour                  timestamptz not null,
    model                 text        not null,
    -- The nil UUID for requests without a key.
    api_key_id            uuid        not null,
    currency              text        not null,
    requests              bigint      not null,
    input_tokens          numeric     not null,
    cached_input_tokens   numeric     not null,
    cache_write_tokens    numeric     not null,
    cache_write_1h_tokens numeric     not null,
    output_tokens         numeric     not null,
    reasoning_tokens      numeric     not null,
    audio_input_tokens    numeric     not null,
    audio_output_tokens   numeric     not null,
    images                numeric     not null,
    price_micros          numeric     not null,
    cost_micros           numeric     not null
);

create table usage_rollups (
    organization_id       uuid        not null,
    grain                 text        not null check (grain in ('hour', 'day')),
    window_start          timestamptz not null,
    model                 text        not null,
    api_key_id            uuid        not null,
    currency              text        not null,
    requests              bigint      not null,
    input_tokens          numeric     not null,
    cached_input_tokens   numeric     not null,
    cache_write_tokens    numeric     not null,
    cache_write_1h_tokens numeric     not null,
    output_tokens         numeric     not null,
    reasoning_tokens      numeric     not null,
    audio_input_tokens    numeric     not null,
    audio_output_tokens   numeric     not null,
    images                numeric     not null,
    price_micros          numeric     not null,
    cost_micros           numeric     not null,
    primary key (grain, window_start, organization_id, model, api_key_id, currency)
);

-- The rows as deltas; one for each hour and what it is kept apart by.
create function usage_deltas_of_all(since timestamptz) returns void language sql security definer set search_path = public as $$
    insert into usage_deltas (organization_id, hour, model, api_key_id, currency, requests, input_tokens, cached_input_tokens, cache_write_tokens,
        cache_write_1h_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, images, price_micros, cost_micros)
    select organization_id, date_trunc('hour', ended_at, 'UTC'), model, coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'), currency,
        count(*), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens), sum(cache_write_1h_tokens), sum(output_tokens),
        sum(reasoning_tokens), sum(audio_input_tokens), sum(audio_output_tokens), sum(images), sum(price_micros), sum(cost_micros)
    from usage_events where ended_at >= since group by 1, 2, 3, 4, 5
$$;
select usage_deltas_of_all('-infinity');

create function note_new_usage() returns trigger language plpgsql security definer set search_path = public as $$
begin
    insert into usage_requests (request_id) select request_id from new_rows;
    insert into usage_deltas (organization_id, hour, model, api_key_id, currency, requests, input_tokens, cached_input_tokens, cache_write_tokens,
        cache_write_1h_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, images, price_micros, cost_micros)
    select organization_id, date_trunc('hour', ended_at, 'UTC'), model, coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'), currency,
        count(*), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens), sum(cache_write_1h_tokens), sum(output_tokens),
        sum(reasoning_tokens), sum(audio_input_tokens), sum(audio_output_tokens), sum(images), sum(price_micros), sum(cost_micros)
    from new_rows group by 1, 2, 3, 4, 5;
    return null;
end $$;
create trigger usage_events_noted after insert on usage_events referencing new table as new_rows
    for each statement execute function note_new_usage();

create function note_replaced_usage() returns trigger language plpgsql security definer set search_path = public as $$
begin
    insert into usage_deltas (organization_id, hour, model, api_key_id, currency, requests, input_tokens, cached_input_tokens, cache_write_tokens,
        cache_write_1h_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, images, price_micros, cost_micros)
    select organization_id, date_trunc('hour', ended_at, 'UTC'), model, coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'), currency,
        sum(n), sum(n * input_tokens), sum(n * cached_input_tokens), sum(n * cache_write_tokens), sum(n * cache_write_1h_tokens),
        sum(n * output_tokens), sum(n * reasoning_tokens), sum(n * audio_input_tokens), sum(n * audio_output_tokens), sum(n * images),
        sum(n * price_micros), sum(n * cost_micros)
    from (select 1::numeric as n, * from new_rows union all select -1::numeric, * from old_rows) changed
    group by 1, 2, 3, 4, 5;
    return null;
end $$;
create trigger usage_events_replaced after update on usage_events referencing old table as old_rows new table as new_rows
    for each statement execute function note_replaced_usage();

-- Rollups and what was not added to them yet, together: never behind the rows.
create view usage_by_day as
select organization_id, window_start as day, model, api_key_id, currency, requests, price_micros, cost_micros from usage_rollups where grain = 'day'
union all
select organization_id, date_trunc('day', hour, 'UTC'), model, api_key_id, currency, requests, price_micros, cost_micros from usage_deltas;

revoke all on function usage_partitions_create, usage_partitions_retire, usage_deltas_of_all from public;
grant execute on function usage_partitions_create, usage_partitions_retire, usage_deltas_of_all to billing_app;
grant select on usage_requests, usage_retired, usage_by_day to billing_app;
grant select, delete on usage_deltas to billing_app;
grant select, insert, update, delete on usage_rollups to billing_app;
