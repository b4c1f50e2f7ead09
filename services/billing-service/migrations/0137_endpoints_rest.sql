-- An endpoint that fails again and again rests as a whole: each of its messages had tries of its own, so that a few organizations with endpoints
-- that never answer held all lanes of the sender for hours.
-- Locks: webhook_endpoints and webhook_deliveries, for as long as it takes to note their columns.
alter table webhook_endpoints
    add column failures    integer not null default 0,
    add column rests_until timestamptz;
grant update (failures, rests_until) on webhook_endpoints to billing_app;
-- What was sent for again waits anew.
alter table webhook_deliveries add column replayed_at timestamptz;
grant update (replayed_at) on webhook_deliveries to billing_app;
