-- What a request was tagged with (`X-Trivet-Tags`), and what each tag's requests were sold for, by day: a budget of a tag can tell, and what
-- was spent of it before is known, as of a person (0061). The same trigger writes both, since a statement that inserts usage should fire no
-- more functions than it must. An older version that still runs writes rows without tags, and leaves these deltas alone.
alter table usage_events add column tags jsonb not null default '[]';

create table tag_spend_deltas (
    id              bigint      generated always as identity primary key,
    organization_id uuid        not null,
    tag             text        not null,
    currency        text        not null,
    day             timestamptz not null,
    price_micros    numeric     not null
);
-- A client may make up a tag for each request: what one organization has there is nothing to another's.
create index tag_spend_deltas_tag on tag_spend_deltas (organization_id, tag);

create table tag_spend_rollups (
    organization_id uuid        not null,
    tag             text        not null,
    currency        text        not null,
    day             timestamptz not null,
    price_micros    numeric     not null,
    primary key (organization_id, tag, currency, day)
);
create index tag_spend_rollups_day on tag_spend_rollups (day);

-- As far back as budgets look, and so as far as sums of tags are kept: the last month with usage, and the one before.
create function tag_spend_since() returns timestamptz language sql stable security definer set search_path = public as $$
    select date_trunc('month', least(now(), (select max(ended_at) from usage_events)), 'UTC') - interval '1 month'
$$;

-- Both together: never behind the rows.
create view tag_spend_by_day as
select organization_id, tag, currency, day, price_micros from tag_spend_rollups
union all
select organization_id, tag, currency, day, price_micros from tag_spend_deltas;

create or replace function note_spend() returns trigger language plpgsql security definer set search_path = public as $$
begin
    if tg_op = 'INSERT' then
        insert into spend_deltas (organization_id, user_id, currency, day, price_micros)
        select organization_id, user_id, currency, date_trunc('day', ended_at, 'UTC'), sum(price_micros) from new_rows
        where user_id is not null group by 1, 2, 3, 4;
        insert into tag_spend_deltas (organization_id, tag, currency, day, price_micros)
        select organization_id, tag, currency, date_trunc('day', ended_at, 'UTC'), sum(price_micros)
        from new_rows, jsonb_array_elements_text(tags) tag group by 1, 2, 3, 4;
    else
        insert into spend_deltas (organization_id, user_id, currency, day, price_micros)
        select organization_id, user_id, currency, date_trunc('day', ended_at, 'UTC'), sum(n * price_micros)
        from (select 1::numeric as n, * from new_rows union all select -1::numeric, * from old_rows) changed
        where user_id is not null group by 1, 2, 3, 4;
        insert into tag_spend_deltas (organization_id, tag, currency, day, price_micros)
        select organization_id, tag, currency, date_trunc('day', ended_at, 'UTC'), sum(n * price_micros)
        from (select 1::numeric as n, * from new_rows union all select -1::numeric, * from old_rows) changed,
          jsonb_array_elements_text(tags) tag group by 1, 2, 3, 4;
    end if;
    return null;
end $$;

create function tag_spend_deltas_of_all(since timestamptz) returns void language sql security definer set search_path = public as $$
    insert into tag_spend_deltas (organization_id, tag, currency, day, price_micros)
    select organization_id, tag, currency, date_trunc('day', ended_at, 'UTC'), sum(price_micros)
    from usage_events, jsonb_array_elements_text(tags) tag
    where ended_at >= greatest(since, tag_spend_since()) and tags <> '[]' group by 1, 2, 3, 4
$$;

revoke all on function tag_spend_deltas_of_all, tag_spend_since from public;
grant execute on function tag_spend_deltas_of_all, tag_spend_since to billing_app;
grant select on tag_spend_by_day to billing_app;
grant select, delete on tag_spend_deltas to billing_app;
grant select, insert, update, delete on tag_spend_rollups to billing_app;
