-- What waits is a handful among all that was ever kept, or a hundred thousand an hour later, and statistics of the hour before say "none". Of an
-- index that is said to hold nothing the planner takes the whole for as cheap as one row of it: then each look reads all that waits, and all that
-- has left and was not vacuumed. Without statistics it assumes one row in two hundred, and looks up what it is asked for.
alter table stripe_events alter column state set statistics 0;
alter table intents alter column sent_at set statistics 0;
alter table stripe_customers alter column customer_id set statistics 0;
alter table subscription_grants alter column posted_at set statistics 0;
alter table webhook_deliveries alter column state set statistics 0;
alter table stripe_meter_reports alter column state set statistics 0;
-- What was gathered before is kept until it is taken away, which older versions of Postgres have no function for.
do $$ begin
    if current_setting('server_version_num')::int >= 180000 then
        perform pg_clear_attribute_stats(schemaname => 'public', relname => stale.relname, attname => stale.attname, inherited => false)
        from (values ('stripe_events', 'state'), ('intents', 'sent_at'), ('stripe_customers', 'customer_id'), ('subscription_grants', 'posted_at'),
            ('webhook_deliveries', 'state'), ('stripe_meter_reports', 'state')) stale (relname, attname);
    end if;
end $$;

-- Until a table is vacuumed every look passes over what has left the queue, and with the default that is when a fifth of all that was ever kept has
-- changed. Indexes are cleaned each time: that few pages are dead is no reason to leave them, when those are the ones that are read.
alter table stripe_events set (autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0, vacuum_index_cleanup = on);
alter table intents set (autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0, vacuum_index_cleanup = on);

-- Contract: nothing is found by it. What is due is taken in its order, by `intents_unsent_in_order`.
drop index intents_unsent;
