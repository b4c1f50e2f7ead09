-- Metering for any service: CloudEvents, unique by source and id for as long as they are kept (that is: for ever; the key is in the
-- database and not in a cache [B-55]), and meters that count them. What an event adds to a meter is one view, so that the running
-- count and a rebuild cannot disagree about it [B-61].
create table metered_events (
    organization_id uuid        not null,
    source          text        not null,
    id              text        not null,
    type            text        not null,
    subject         text,
    -- When it happened, as its source says.
    occurred_at     timestamptz not null,
    -- The instant whose period it counts in: when it happened, or for an adjustment to a closed period when it came [B-59].
    counted_at      timestamptz not null,
    adjustment      boolean     not null,
    data            jsonb       not null,
    received_at     timestamptz not null,
    primary key (organization_id, source, id)
);
create index metered_events_type on metered_events (organization_id, type, counted_at);

create table meters (
    id              uuid        primary key,
    organization_id uuid        not null,
    name            text        not null,
    event_type      text        not null,
    aggregation     text        not null check (aggregation in ('sum', 'count', 'max', 'unique')),
    -- Where the value is in `data`; only counting needs none.
    value_path      text[]      check ((value_path is null) = (aggregation = 'count')),
    -- [{"name": "region", "path": ["region"]}]
    group_by        jsonb       not null check (jsonb_typeof(group_by) = 'array'),
    -- [{"path": ["tier"], "values": ["free", "pro"]}]: all must hold.
    filters         jsonb       not null check (jsonb_typeof(filters) = 'array'),
    created_at      timestamptz not null,
    constraint meters_name_key unique (organization_id, name)
);
create index meters_type on meters (organization_id, event_type);

-- What each event adds to each meter that its filters let in.
create view meter_contributions as
select e.organization_id, e.source, e.id, m.id as meter_id, date_trunc('hour', e.counted_at, 'UTC') as hour,
    (select coalesce(jsonb_object_agg(g ->> 'name', e.data #>> array(select jsonb_array_elements_text(g -> 'path'))), '{}')
     from jsonb_array_elements(m.group_by) g) as groups,
    case when m.aggregation in ('sum', 'max') and e.data #>> m.value_path ~ '^[0-9]+([.][0-9]+)?([eE][+-]?[0-9]{1,2})?$'
        then (e.data #>> m.value_path)::numeric end as amount,
    case when m.aggregation = 'unique' then e.data #>> m.value_path end as value
from metered_events e join meters m on m.organization_id = e.organization_id and m.event_type = e.type
where not exists (
    select from jsonb_array_elements(m.filters) f
    where not coalesce((f -> 'values') ? (e.data #>> array(select jsonb_array_elements_text(f -> 'path'))), false));

-- What was not yet added to the rollups. Only ever inserted and taken: no two writers meet on a row.
create table meter_deltas (
    id       bigint      generated always as identity primary key,
    meter_id uuid        not null,
    hour     timestamptz not null,
    groups   jsonb       not null,
    events   bigint      not null,
    amount   numeric     not null,
    most     numeric,
    value    text
);
create index meter_deltas_meter on meter_deltas (meter_id, hour);

create table meter_rollups (
    meter_id     uuid        not null,
    grain        text        not null check (grain in ('hour', 'day')),
    window_start timestamptz not null,
    groups       jsonb       not null,
    events       bigint      not null,
    amount       numeric     not null,
    most         numeric,
    primary key (meter_id, grain, window_start, groups)
);
-- The distinct values of each hour: how many of them a longer time has is no sum.
create table meter_values (
    meter_id     uuid        not null,
    window_start timestamptz not null,
    groups       jsonb       not null,
    value        text        not null,
    primary key (meter_id, window_start, groups, value)
);

grant select, insert on metered_events, meters to billing_app;
grant select on meter_contributions to billing_app;
grant select, insert, delete on meter_deltas to billing_app;
grant select, insert, update, delete on meter_rollups to billing_app;
grant select, insert, delete on meter_values to billing_app;
