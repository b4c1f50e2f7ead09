-- What a meter groups by is part of the key of its sums, and an index entry has no room for more than some 2,700 bytes. Events with longer
-- values are refused when they come (256 bytes for each, 900 for all); those that were there before the meter count with the beginning of
-- theirs.
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
    where not coalesce((f -> 'values') ? (e.data #>> array(select jsonb_array_elements_text(f -> 'path'))), false));
