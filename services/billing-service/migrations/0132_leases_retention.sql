-- Leases go when they ended long ago. An organization's last one stays, whichever model it is for: the next one's epoch is one more than the
-- highest there is, and must be above those that Redis has seen.
-- Usage names its lease for whoever reads it, and needs it only while it is posted: then the lease is locked, and one that is gone holds nothing,
-- as one that ended.
-- Locks: whoever posts usage waits until this has committed, which changes the catalog alone. Leases first, as who posts takes them.
lock table leases, usage_events in access exclusive mode;
alter table usage_events drop constraint usage_events_lease_id_fkey;
-- Months that were detached have it of their own, and no index to look a lease up by.
do $$
declare
    referring record;
begin
    for referring in
        select conrelid::regclass as name, conname from pg_constraint where contype = 'f' and confrelid = 'leases'::regclass and conparentid = 0
    loop
        execute format('alter table %s drop constraint %I', referring.name, referring.conname);
    end loop;
end $$;

-- Takes out those of a batch that ended before an instant; says how many it looked at, which was the last of them, and how many went. An id begins
-- with the milliseconds at which it was made (UUIDv7): in their order the oldest come first, and no other index is needed.
create function leases_retire(after uuid, before timestamptz, most integer, out seen bigint, out last uuid, out taken bigint)
language plpgsql security definer set search_path = public, pg_temp set plan_cache_mode = force_custom_plan as $$
declare
    until uuid := (lpad(to_hex((extract(epoch from before) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
    looked uuid[];
begin
    looked := array(select id from leases where id > after and id < until order by id limit most);
    seen := cardinality(looked);
    last := looked[seen];
    delete from leases where ctid = any (array(
        select l.ctid from leases l
        where l.id = any (looked) and l.state = 'closed' and l.closed_at < before
            and exists (select from leases n where n.organization_id = l.organization_id and n.epoch > l.epoch)
        for update skip locked));
    get diagnostics taken = row_count;
end $$;

revoke execute on function leases_retire(uuid, timestamptz, integer) from public;
grant execute on function leases_retire(uuid, timestamptz, integer) to billing_app;
