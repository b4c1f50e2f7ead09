-- The secret of an endpoint is derived with its version, so that another one can take its place; until `former_until` messages are signed
-- with the one before as well. A version of the service that knows none of this signs with the first.
alter table webhook_endpoints add column secret_version integer not null default 1, add column former_until timestamptz;
grant update (secret_version, former_until) on webhook_endpoints to billing_app;
