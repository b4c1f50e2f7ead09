//! What handlers share; cheap to clone, split by `FromRef`.

use std::sync::Arc;

use axum::extract::FromRef;
use chassis::cursor::CursorKey;
use chassis::host::Host;
use chassis::outbox::Relay;
use chassis::{Clock, Random};
use identity::{Authenticator, KeySource, ServiceAuthenticator};
use sqlx::PgPool;

use crate::api_keys::lookup::LocalLookup;
use crate::config::{AuthConfig, KeyEnvironment, ServiceKeys};
use crate::error::Error;
use crate::housekeeping;
use crate::passwords::Hasher;
use crate::secrets::Secrets;
use crate::service_grants::OperatorGrants;
use crate::sessions::lookup::LocalSessions;
use crate::tokens::Tokens;

/// Everything a handler may need.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The database, as the role that owns nothing.
    pub pool: PgPool,
    /// Publishes events.
    pub relay: Relay,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Passwords.
    pub hasher: Hasher,
    /// Derived keys.
    pub secrets: Secrets,
    /// Makes access tokens.
    pub tokens: Tokens,
    /// Seals cursors of the list of API keys.
    pub key_cursors: CursorKey,
    /// The environment in new API keys.
    pub key_environment: KeyEnvironment,
    /// Public keys of services.
    pub services: Arc<ServiceKeys>,
    /// What programs of operators may call.
    pub operator_grants: Arc<OperatorGrants>,
    /// Days that events of the audit are kept; 0 keeps all.
    pub audit_retention_days: u32,
    lookup: LocalLookup,
    authenticator: Authenticator,
    service_authenticator: ServiceAuthenticator,
}

impl AppState {
    /// Puts the state together.
    ///
    /// # Errors
    /// When Argon2 refuses its parameters.
    pub fn new(config: &AuthConfig, pool: PgPool, relay: Relay, clock: Clock, random: Random) -> Result<Self, Error> {
        let secrets = config.secret.clone();
        let hasher = Hasher::new(&secrets, config.hash_concurrency.0, random.clone())?;
        let tokens = Tokens::new(config.identity.clone(), pool.clone(), secrets.clone(), clock.clone(), random.clone());
        let lookup = LocalLookup::new(pool.clone(), clock.clone());
        let sessions = Arc::new(LocalSessions::new(pool.clone(), clock.clone()));
        let keys: Arc<dyn KeySource> = Arc::new(tokens.clone());
        let authenticator =
            Authenticator::at_source(config.identity.clone(), keys.clone(), Arc::new(lookup.clone()), sessions, clock.clone());
        let service_authenticator = ServiceAuthenticator::new(&config.identity.issuer, contracts::auth::SERVICE, keys, clock.clone());
        let key_cursors = CursorKey::derive(&secrets.cursors(), "api-keys");
        Ok(Self {
            pool,
            relay,
            clock,
            random,
            hasher,
            secrets,
            tokens,
            key_cursors,
            key_environment: config.key_environment.clone(),
            services: Arc::new(config.service_jwks.clone()),
            operator_grants: Arc::new(config.operator_grants.clone()),
            audit_retention_days: config.audit_retention_days,
            lookup,
            authenticator,
            service_authenticator,
        })
    }

    /// Look-ups of API keys in this service's own database.
    #[must_use]
    pub const fn local_lookup(&self) -> &LocalLookup {
        &self.lookup
    }

    /// Starts what runs beside the requests.
    pub fn spawn_tasks(&self, host: &Host) {
        let state = self.clone();
        host.spawn("outbox-relay", |stop| async move { state.relay.run(&stop).await });
        let lookup = self.lookup.clone();
        host.spawn("api-key-last-used", |stop| async move { lookup.flush_until(&stop).await });
        let state = self.clone();
        host.spawn("housekeeping", |stop| async move { housekeeping::run(&state, &stop).await });
    }
}

impl FromRef<AppState> for Authenticator {
    fn from_ref(state: &AppState) -> Self {
        state.authenticator.clone()
    }
}

impl FromRef<AppState> for ServiceAuthenticator {
    fn from_ref(state: &AppState) -> Self {
        state.service_authenticator.clone()
    }
}
