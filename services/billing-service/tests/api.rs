//! billing-service as its callers see it, on real Postgres and Redis.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "api/app.rs"]
mod app;
#[path = "api/debt.rs"]
mod debt;
#[path = "api/documents.rs"]
mod documents;
#[path = "api/edge.rs"]
mod edge;
#[path = "api/expiry.rs"]
mod expiry;
#[path = "api/ledger.rs"]
mod ledger;
#[path = "api/metering.rs"]
mod metering;
#[path = "api/rate_terms.rs"]
mod rate_terms;
#[path = "api/rates.rs"]
mod rates;
#[path = "api/replicas.rs"]
mod replicas;
#[path = "api/reservations.rs"]
mod reservations;
#[path = "api/rollups.rs"]
mod rollups;
#[path = "api/stream_failures.rs"]
mod stream_failures;
#[path = "api/stripe.rs"]
mod stripe;
#[path = "api/usage_events.rs"]
mod usage_events;
#[path = "api/usage_migration.rs"]
mod usage_migration;
