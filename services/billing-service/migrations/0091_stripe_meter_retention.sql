-- Reports are no longer kept for ever: what Stripe has, of hours that nobody reports or compares any more, goes in batches. What was set
-- aside stays until somebody decides about it.
create function stripe_meter_reports_retire(before timestamptz, most integer) returns bigint
language plpgsql security definer set search_path = public as $$
declare
    taken bigint;
begin
    -- By meter, along the index of dates. A report may be dated later than its hour, and is compared by its date.
    delete from stripe_meter_reports where identifier = any (array(
        select r.identifier from stripe_meters s cross join lateral (
            select identifier from stripe_meter_reports p
            where p.stripe_meter_id = s.id and p.dated < before and p.hour < before and (p.state = 'sent' or p.reason like 'stopped:%') limit most) r
        limit most));
    get diagnostics taken = row_count;
    return taken;
end $$;

revoke all on function stripe_meter_reports_retire from public;
grant execute on function stripe_meter_reports_retire to billing_app;
