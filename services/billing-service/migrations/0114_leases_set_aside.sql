-- A lease that cannot end is looked at again later: a hundred such would otherwise stand before all others at every sweep.
alter table leases add column next_at timestamptz;
grant update (next_at) on leases to billing_app;
