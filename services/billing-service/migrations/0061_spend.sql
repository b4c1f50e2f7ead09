-- What each person's requests were sold for, by day: budgets of a user are judged by this and not by every row of a month. As the other
-- rollups: a write adds what it changes to a table of deltas where no two writers meet, a worker adds the deltas up, and who reads takes
-- both. A table of its own beside usage_deltas, because an older version that still runs adds those up without knowing of people.
create table spend_deltas (
    id              bigint      generated always as identity primary key,
    organization_id uuid        not null,
    user_id         uuid        not null,
    currency        text        not null,
    day             timestamptz not null,
    price_micros    numeric     not null
);

create table spend_rollups (
    organization_id uuid        not null,
    user_id         uuid        not null,
    currency        text        not null,
    day             timestamptz not null,
    price_micros    numeric     not null,
    primary key (organization_id, user_id, currency, day)
);

-- Both together: never behind the rows.
create view spend_by_day as
select organization_id, user_id, currency, day, price_micros from spend_rollups
union all
select organization_id, user_id, currency, day, price_micros from spend_deltas;

create function note_spend() returns trigger language plpgsql security definer set search_path = public as $$
begin
    if tg_op = 'INSERT' then
        insert into spend_deltas (organization_id, user_id, currency, day, price_micros)
        select organization_id, user_id, currency, date_trunc('day', ended_at, 'UTC'), sum(price_micros) from new_rows
        where user_id is not null group by 1, 2, 3, 4;
    else
        insert into spend_deltas (organization_id, user_id, currency, day, price_micros)
        select organization_id, user_id, currency, date_trunc('day', ended_at, 'UTC'), sum(n * price_micros)
        from (select 1::numeric as n, * from new_rows union all select -1::numeric, * from old_rows) changed
        where user_id is not null group by 1, 2, 3, 4;
    end if;
    return null;
end $$;
-- From here on nobody writes usage until this is done; what is counted below is the last month with usage and the one before, which is all
-- that a budget can ask for. `usage rebuild` counts the rest.
create trigger usage_events_spend after insert on usage_events referencing new table as new_rows
    for each statement execute function note_spend();
create trigger usage_events_spend_replaced after update on usage_events referencing old table as old_rows new table as new_rows
    for each statement execute function note_spend();

create function spend_deltas_of_all(since timestamptz) returns void language sql security definer set search_path = public as $$
    insert into spend_deltas (organization_id, user_id, currency, day, price_micros)
    select organization_id, user_id, currency, date_trunc('day', ended_at, 'UTC'), sum(price_micros)
    from usage_events where ended_at >= since and user_id is not null group by 1, 2, 3, 4
$$;
select spend_deltas_of_all(date_trunc('month', least(now(), (select max(ended_at) from usage_events)), 'UTC') - interval '1 month');

-- The rollups of one organization in a month, whatever others use.
create index usage_rollups_organization on usage_rollups (organization_id, window_start) where grain = 'day';

revoke all on function spend_deltas_of_all from public;
grant execute on function spend_deltas_of_all to billing_app;
grant select on spend_by_day to billing_app;
grant select, delete on spend_deltas to billing_app;
grant select, insert, update, delete on spend_rollups to billing_app;
