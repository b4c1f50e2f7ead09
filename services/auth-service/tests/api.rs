//! auth-service as its callers see it, on real Postgres and Redis.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "api/accounts_and_sessions.rs"]
mod accounts_and_sessions;
#[path = "api/app.rs"]
mod app;
#[path = "api/documents.rs"]
mod documents;
#[path = "api/keys_and_services.rs"]
mod keys_and_services;
