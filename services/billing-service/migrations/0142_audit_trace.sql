-- A row of the audit log says of which trace it is, where the command came by HTTP: its request is found by it.
-- Locks: that of the table, for an entry in the catalogue.
alter table audit_log add column trace_id text;
