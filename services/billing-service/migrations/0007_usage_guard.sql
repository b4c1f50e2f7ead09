-- Only an abandoned row is ever replaced (0003 says so; here it is held): what was charged for stays as it was charged.
create function refuse_usage_change() returns trigger language plpgsql as $$
begin
    raise exception 'usage of request % is settled', old.request_id using errcode = 'check_violation', constraint = 'usage_events_settled';
end $$;
create trigger usage_events_settled before update on usage_events for each row
    when (old.counted_by <> 'abandoned') execute function refuse_usage_change();
