-- How many earlier events of a meter are counted at once: fewer, where events are so large that a batch takes too long.
alter table meters add column batch integer not null default 2000;
grant update (batch) on meters to billing_app;

-- As in 0128; and only months stay of which a meter is still to count some: it has been made, and what it counts is of its organization.
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
        or exists (select from meters m where not m.is_complete and exists (
            select from metered_events e where e.organization_id = m.organization_id and e.type = m.event_type and e.counted_at < until)) then
        return 0;
    end if;
    insert into metered_retired (month, events, finished) values (last_month, 0, false) on conflict do nothing;
    delete from metered_events where ctid = any (array(select ctid from metered_events where counted_at < until limit most));
    get diagnostics taken = row_count;
    update metered_retired set events = events + taken, finished = taken < most where month = last_month;
    return taken;
end $$;
