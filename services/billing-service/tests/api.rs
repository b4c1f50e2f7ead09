//! billing-service as its callers see it, on real Postgres and Redis.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "api/app.rs"]
mod app;
#[path = "api/documents.rs"]
mod documents;
#[path = "api/edge.rs"]
mod edge;
#[path = "api/ledger.rs"]
mod ledger;
