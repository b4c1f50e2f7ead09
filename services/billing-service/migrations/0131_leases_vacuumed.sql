-- As in 0113: who ends leases and holds looks for those that are due at the front of an index, and passes over all that have left it until the
-- table is vacuumed. By default that is when a fifth of all that was ever kept has changed, and of leases there are millions a day.
alter table leases set (autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0, vacuum_index_cleanup = on);
alter table reservations set (autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_scale_factor = 0, vacuum_index_cleanup = on);
