-- What is over for long goes, in batches: every login and every refresh left rows for ever. The tokens of a session go only with a session that is
-- over, since a stolen one is recognized by its row as long as its session lives.
-- Locks: the index is of a whole table. UPGRADE.md says how it is made before, where there are many sessions.
create index if not exists sessions_over on sessions (least(expires_at, revoked_at));

grant delete on sessions, refresh_tokens to auth_app;

-- The service still adds to the audit and takes nothing out of it, but by this, and nothing that is younger than 90 days by the database's own clock:
-- who has got hold of its role cannot remove what that left. Takes out a batch of what was recorded before an instant; returns how many.
create function audit_events_retire(before timestamptz, most integer) returns bigint
language plpgsql strict security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    until timestamptz := least(before, now() - interval '90 days');
    taken bigint;
begin
    -- Oldest first by the primary key, without an index of times: an id (UUIDv7) begins with the milliseconds of its making, in 12 digits.
    delete from public.audit_events where id = any (array(
        select id from public.audit_events
        where id < (lpad(to_hex((greatest(extract(epoch from until), 0) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid and occurred_at < until
        order by id limit most for update skip locked));
    get diagnostics taken = row_count;
    return taken;
end $$;

revoke all on function audit_events_retire from public;
grant execute on function audit_events_retire to auth_app;
