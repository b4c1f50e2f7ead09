-- After a restore Redis may have later leases of an organization than the database: the next one must come after those, and is a row by the time
-- that Redis says so.
grant update (epoch) on leases to billing_app;
