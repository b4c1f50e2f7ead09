//! Who is calling, with real tokens, a real Redis and a stand-in for auth-service that counts, fails and hangs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "identity/auth_server.rs"]
mod auth_server;
#[path = "identity/forge.rs"]
mod forge;
#[path = "identity/remote_keys.rs"]
mod remote_keys;
#[path = "identity/revocations.rs"]
mod revocations;
#[path = "identity/service_tokens.rs"]
mod service_tokens;
#[path = "identity/tokens.rs"]
mod tokens;
