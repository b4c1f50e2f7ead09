//! What auth-service reads from its environment.

use std::collections::BTreeSet;
use std::sync::Arc;

use chassis::config::FromSetting;
use chassis::http::HttpConfig;
use chassis::postgres::PostgresConfig;
use chassis::redis::RedisConfig;
use chassis::telemetry::TelemetryConfig;
use identity::{IdentityConfig, JwkSet};

use crate::secrets::Secrets;
use crate::service_grants::OperatorGrants;

chassis::settings! {
    /// Everything auth-service needs to serve.
    pub struct AuthConfig {
        /// Listeners and limits.
        pub http: HttpConfig = nested,
        /// Logs, traces, metrics.
        pub telemetry: TelemetryConfig = nested,
        /// The database.
        pub postgres: PostgresConfig = nested,
        /// Redis.
        pub redis: RedisConfig = nested,
        /// Issuer and audience of tokens.
        pub identity: IdentityConfig = nested,
        /// The root key, base64 of at least 32 random bytes: encryption keys and the password pepper are derived from it.
        pub secret: Secrets = required "AUTH_SECRET",
        /// Public keys of the services that may call private routes: a JSON Web Key Set whose `kid` is the service's name.
        pub service_jwks: ServiceKeys = required "AUTH_SERVICE_JWKS",
        /// What programs of operators may do on private routes: `NAME AUDIENCE SCOPE...` for each, with `;` between. The name is that of a
        /// key in `AUTH_SERVICE_JWKS`, the scopes are `billing:admin:read`, `billing:admin:write` and `margin:read` of `billing-service`.
        pub operator_grants: OperatorGrants = default "AUTH_OPERATOR_GRANTS" "",
        /// The environment written into new API keys (`tvk_<environment>_…`), 1 to 16 lower-case letters.
        pub key_environment: KeyEnvironment = default "AUTH_KEY_ENVIRONMENT" "live",
        /// Passwords hashed at once; each takes 19 MiB. One more is answered 503.
        pub hash_concurrency: Places = default "AUTH_HASH_CONCURRENCY" "4",
        /// Days that events of the audit are kept, at least 90; older ones are removed. 0 keeps all.
        pub audit_retention_days: u32 = default "AUTH_AUDIT_RETENTION_DAYS" "0",
    }
}

chassis::settings! {
    /// Everything the migrations need.
    pub struct MigrateConfig {
        /// The database, as the role that owns the schema.
        pub postgres: PostgresConfig = nested,
    }
}

/// The public keys of services, by their names.
#[derive(Debug, Clone, Default)]
pub struct ServiceKeys(JwkSet);

impl ServiceKeys {
    /// Keys that are checked already.
    #[must_use]
    pub const fn new(keys: JwkSet) -> Self {
        Self(keys)
    }

    /// The keys.
    #[must_use]
    pub const fn set(&self) -> &JwkSet {
        &self.0
    }
}

impl FromSetting for ServiceKeys {
    fn from_setting(text: &str) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_str(text).map_err(|_| "must be a JSON Web Key Set of Ed25519 keys".to_owned())?;
        let names: BTreeSet<&str> = set.keys.iter().map(|key| key.kid.as_str()).collect();
        if set.keys.iter().any(|key| key.public_key().is_none()) {
            return Err("must hold Ed25519 keys (RFC 8037) only".to_owned());
        }
        if names.len() != set.keys.len() || names.contains("") {
            return Err("must name each service (`kid`) once".to_owned());
        }
        Ok(Self(set))
    }
}

/// The environment in new API keys; one that [`PresentedKey`](identity::PresentedKey) would not recognize is refused.
#[derive(Debug, Clone)]
pub struct KeyEnvironment(Arc<str>);

impl KeyEnvironment {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromSetting for KeyEnvironment {
    fn from_setting(text: &str) -> Result<Self, String> {
        let fits = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase());
        if fits { Ok(Self(text.into())) } else { Err("must be 1 to 16 lower-case letters".to_owned()) }
    }
}

/// A number of places of which there must be one.
#[derive(Debug, Clone, Copy)]
pub struct Places(pub usize);

impl FromSetting for Places {
    fn from_setting(text: &str) -> Result<Self, String> {
        let places = usize::from_setting(text).ok().filter(|places| (1..=1024).contains(places));
        places.map(Self).ok_or_else(|| "must be a whole number from 1 to 1024".to_owned())
    }
}
