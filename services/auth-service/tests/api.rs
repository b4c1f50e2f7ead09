//! auth-service as its callers see it, on real Postgres and Redis.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "api/accounts_and_sessions.rs"]
mod accounts_and_sessions;
#[path = "api/api_keys.rs"]
mod api_keys;
#[path = "api/app.rs"]
mod app;
#[path = "api/audit.rs"]
mod audit;
#[path = "api/configuration.rs"]
mod configuration;
#[path = "api/documents.rs"]
mod documents;
#[path = "api/forge.rs"]
mod forge;
#[path = "api/key_limits.rs"]
mod key_limits;
#[path = "api/retention.rs"]
mod retention;
#[path = "api/secrets.rs"]
mod secrets;
#[path = "api/services.rs"]
mod services;
#[path = "api/tokens.rs"]
mod tokens;
