-- A database that was restored from a backup does not know what it had done at Stripe since, and does it again as soon as it is decided anew. That
-- it was away is seen in how far Stripe's list of events was looked through: it is behind then, and for a time after it was caught up what is
-- wanted is looked for at Stripe before it is done.
alter table stripe_event_position add column look_first_until timestamptz;
grant update (look_first_until) on stripe_event_position to billing_app;
