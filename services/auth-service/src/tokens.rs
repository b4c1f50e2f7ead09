//! Access tokens and the keys that sign them. Two keys are published: the current one and the next, which has been published
//! for longer than anybody caches keys when it begins to sign [I-50].

mod keyring;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chassis::{Clock, Random};
use identity::jwt::ACCESS_TOKEN;
use identity::{
    AccessClaims, IdentityConfig, JwkSet, KeySource, LookupUnavailable, OrganizationId, Scopes, ServiceClaims, SessionId, UserId,
};
use serde::Serialize;
use sqlx::PgPool;

pub use keyring::{Keyring, Rotation, rotate};

use crate::error::Error;
use crate::secrets::Secrets;

/// Life of a user's access token, in seconds.
pub const ACCESS_SECONDS: i64 = 600;
/// Life of a service's token, in seconds.
pub const SERVICE_SECONDS: i64 = 300;
/// How long the keys are used before they are read again: a rotation by another process is seen after this.
const RELOAD: Duration = Duration::from_secs(10);
/// The client of sessions that begin with a password.
const FIRST_PARTY: &str = "trivet";

/// A session, as its tokens say it: client, scopes and audience are fixed when it begins [I-53].
#[derive(Debug, Clone)]
pub struct Session {
    /// The session.
    pub id: SessionId,
    /// Its user.
    pub user: UserId,
    /// The organization it acts in.
    pub organization: OrganizationId,
    /// The client that began it.
    pub client_id: String,
    /// What its tokens may be used for.
    pub scopes: Scopes,
    /// For whom its tokens are.
    pub audience: String,
}

/// A signed token.
#[derive(Debug)]
pub struct Signed {
    /// The token.
    pub token: String,
    /// Seconds until it ends.
    pub expires_in: i64,
}

/// Makes tokens; cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    config: IdentityConfig,
    pool: PgPool,
    secrets: Secrets,
    clock: Clock,
    random: Random,
    keyring: RwLock<Option<(Instant, Arc<Keyring>)>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// Tokens signed by the keys in the database; they are made at first use.
    #[must_use]
    pub fn new(config: IdentityConfig, pool: PgPool, secrets: Secrets, clock: Clock, random: Random) -> Self {
        Self(Arc::new(Inner { config, pool, secrets, clock, random, keyring: RwLock::default() }))
    }

    /// The issuer of the tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.config.issuer
    }

    /// The audience of users' access tokens.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.0.config.audience
    }

    /// A new session of our own client, which may do everything that its user may.
    #[must_use]
    pub fn first_party_session(&self, id: SessionId, user: UserId, organization: OrganizationId) -> Session {
        let (client_id, audience) = (FIRST_PARTY.to_owned(), self.audience().to_owned());
        Session { id, user, organization, client_id, scopes: Scopes::all(), audience }
    }

    async fn keyring(&self) -> Result<Arc<Keyring>, Error> {
        let known = self.0.keyring.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, keyring)) = &known
            && at.elapsed() < RELOAD
        {
            return Ok(Arc::clone(keyring));
        }
        match Keyring::load(&self.0.pool, &self.0.secrets, &self.0.clock, &self.0.random).await {
            Ok(keyring) => {
                let keyring = Arc::new(keyring);
                *self.0.keyring.write().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Arc::clone(&keyring)));
                Ok(keyring)
            }
            // With the database away the known keys still verify and sign.
            Err(error) => known.map(|(_, keyring)| keyring).ok_or(error),
        }
    }

    /// The published keys.
    ///
    /// # Errors
    /// The database's.
    pub async fn published(&self) -> Result<JwkSet, Error> {
        Ok(self.keyring().await?.published())
    }

    async fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        self.keyring().await?.current().sign(ACCESS_TOKEN, claims).map_err(|_| Error::Internal("a token could not be signed"))
    }

    fn jti(&self) -> String {
        self.0.random.uuid_v7(&self.0.clock).simple().to_string()
    }

    /// An access token of a session.
    ///
    /// # Errors
    /// The database's, when no key is known yet.
    pub async fn access(&self, session: &Session) -> Result<Signed, Error> {
        let now = self.0.clock.now().timestamp();
        let claims = AccessClaims {
            iss: self.0.config.issuer.clone(),
            aud: session.audience.clone(),
            exp: now + ACCESS_SECONDS,
            nbf: now,
            iat: now,
            sub: session.user,
            client_id: session.client_id.clone(),
            jti: self.jti(),
            org: session.organization,
            sid: session.id,
            scope: session.scopes.to_string(),
        };
        Ok(Signed { token: self.sign(&claims).await?, expires_in: ACCESS_SECONDS })
    }

    /// A service's token for another service.
    ///
    /// # Errors
    /// The database's, when no key is known yet.
    pub async fn service(&self, service: &str, audience: &str, scope: &str) -> Result<Signed, Error> {
        let now = self.0.clock.now().timestamp();
        let claims = ServiceClaims {
            iss: self.0.config.issuer.clone(),
            aud: audience.to_owned(),
            exp: now + SERVICE_SECONDS,
            nbf: now,
            iat: now,
            sub: service.to_owned(),
            client_id: service.to_owned(),
            jti: self.jti(),
            scope: scope.to_owned(),
        };
        Ok(Signed { token: self.sign(&claims).await?, expires_in: SERVICE_SECONDS })
    }
}

#[async_trait]
impl KeySource for Tokens {
    async fn key(&self, kid: &str) -> Result<Option<Vec<u8>>, LookupUnavailable> {
        Ok(self.keyring().await.map_err(|_| LookupUnavailable)?.published().find(kid))
    }
}
