-- A function that runs with its owner's rights looks for tables where it is told to, and last where whoever calls it may make tables of his own:
-- without `pg_temp` at the end that place is searched first, in a database that lets the service make temporary tables.
do $$
declare
    definer record;
begin
    for definer in select p.oid::regprocedure as name from pg_proc p where p.pronamespace = 'public'::regnamespace and p.prosecdef loop
        execute format('alter function %s set search_path = public, pg_temp', definer.name);
    end loop;
end $$;
