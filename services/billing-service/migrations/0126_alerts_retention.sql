-- Alerts, and messages that came to an end, go when they are older than what the configuration keeps; what waits never does.
-- The indexes are of whole tables: UPGRADE.md says how they are made before, where there are many rows.
create index if not exists webhook_deliveries_ended on webhook_deliveries (created_at) where state <> 'waiting';
create index if not exists budget_alerts_created on budget_alerts (created_at);

create function webhook_deliveries_retire(before timestamptz, most integer) returns bigint
language plpgsql security definer set search_path = public as $$
declare
    taken bigint;
begin
    delete from webhook_deliveries where ctid = any (array(
        select ctid from webhook_deliveries where state <> 'waiting' and created_at < before order by created_at limit most for update skip locked));
    get diagnostics taken = row_count;
    return taken;
end $$;

create function budget_alerts_retire(before timestamptz, most integer) returns bigint
language plpgsql security definer set search_path = public as $$
declare
    taken bigint;
begin
    delete from budget_alerts where ctid = any (array(
        select ctid from budget_alerts where created_at < before order by created_at limit most for update skip locked));
    get diagnostics taken = row_count;
    return taken;
end $$;

revoke execute on function webhook_deliveries_retire(timestamptz, integer), budget_alerts_retire(timestamptz, integer) from public;
grant execute on function webhook_deliveries_retire(timestamptz, integer), budget_alerts_retire(timestamptz, integer) to billing_app;
