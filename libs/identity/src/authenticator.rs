//! From a bearer credential to a principal.

use std::sync::Arc;

use chassis::Clock;
use http::{HeaderMap, header};
use tracing::Instrument;

use crate::IdentityConfig;
use crate::api_key::{ApiKeyLookup, PREFIX, PresentedKey, VerifiedApiKey};
use crate::claims::AccessClaims;
use crate::ids::{ApiKeyId, OrganizationId, SessionId, UserId};
use crate::jwks::KeySource;
use crate::jwt::{ACCESS_TOKEN, key_id, verify};
use crate::revocations::Revocations;
use crate::scopes::{Scope, Scopes};
use crate::sessions::SessionCheck;

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A person with a session.
    User {
        /// The person.
        user_id: UserId,
        /// The session.
        session_id: SessionId,
    },
    /// A program with an API key.
    ApiKey {
        /// The key.
        api_key_id: ApiKeyId,
    },
}

/// `user usr_…` or `api key key_…`: how a record says who did something.
impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User { user_id, .. } => write!(f, "user {user_id}"),
            Self::ApiKey { api_key_id } => write!(f, "api key {api_key_id}"),
        }
    }
}

/// Who is calling, for whom, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The organization that is acted for; every query is scoped by it.
    pub organization_id: OrganizationId,
    /// Who acts.
    pub actor: Actor,
    /// What the credential allows.
    pub scopes: Scopes,
    /// Requests per minute that the credential itself is limited to.
    pub requests_per_minute: Option<u32>,
}

/// The credential does not allow what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential lacks the scope {}", .0.as_str())]
pub struct MissingScope(pub Scope);

impl Principal {
    /// Refuses when the scope is missing.
    ///
    /// # Errors
    /// [`MissingScope`].
    pub fn require(&self, scope: Scope) -> Result<(), MissingScope> {
        if self.scopes.contains(scope) { Ok(()) } else { Err(MissingScope(scope)) }
    }

    /// The API key, if it is one that acts.
    #[must_use]
    pub fn api_key_id(&self) -> Option<ApiKeyId> {
        match self.actor {
            Actor::ApiKey { api_key_id } => Some(api_key_id),
            Actor::User { .. } => None,
        }
    }

    /// The person, if it is one who acts.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        match self.actor {
            Actor::User { user_id, .. } => Some(user_id),
            Actor::ApiKey { .. } => None,
        }
    }
}

/// Why nobody was recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateError {
    /// There is no bearer credential.
    #[error("a bearer credential is missing")]
    Missing,
    /// There is one and it is not valid.
    #[error("the credential is not valid")]
    Invalid,
    /// It cannot be judged right now: 503, never 401.
    #[error("the credential cannot be checked right now")]
    Unavailable,
}

/// Recognizes callers; cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    config: Arc<IdentityConfig>,
    keys: Arc<dyn KeySource>,
    lookup: Arc<dyn ApiKeyLookup>,
    sessions: Arc<dyn SessionCheck>,
    /// Where look-ups are remembered, if they are.
    remembered: Option<Revocations>,
    clock: Clock,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// An authenticator for a service that hears of revocations on the stream: look-ups are remembered and sessions believed only
    /// while it is heard.
    #[must_use]
    pub fn new(
        config: IdentityConfig,
        keys: Arc<dyn KeySource>,
        lookup: Arc<dyn ApiKeyLookup>,
        revocations: Revocations,
        clock: Clock,
    ) -> Self {
        let (sessions, remembered) = (Arc::new(revocations.clone()), Some(revocations));
        Self { config: Arc::new(config), keys, lookup, sessions, remembered, clock }
    }

    /// An authenticator for the service that has keys and sessions in its own database: it asks each time, so that it never
    /// learns of a revocation later than it happens.
    #[must_use]
    pub fn at_source(
        config: IdentityConfig,
        keys: Arc<dyn KeySource>,
        lookup: Arc<dyn ApiKeyLookup>,
        sessions: Arc<dyn SessionCheck>,
        clock: Clock,
    ) -> Self {
        Self { config: Arc::new(config), keys, lookup, sessions, remembered: None, clock }
    }

    /// Recognizes the caller by the `Authorization` header.
    ///
    /// # Errors
    /// [`AuthenticateError`].
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, AuthenticateError> {
        let credential = bearer(headers).ok_or(AuthenticateError::Missing)?;
        if credential.starts_with(PREFIX) { self.api_key(credential).await } else { self.access_token(credential).await }
    }

    async fn access_token(&self, token: &str) -> Result<Principal, AuthenticateError> {
        let kid = key_id(token, ACCESS_TOKEN).map_err(|_| AuthenticateError::Invalid)?;
        let key = self.keys.key(&kid).await.map_err(|_| AuthenticateError::Unavailable)?.ok_or(AuthenticateError::Invalid)?;
        let claims: AccessClaims =
            verify(token, &key, &self.config.issuer, &self.config.audience, self.clock.now()).map_err(|_| AuthenticateError::Invalid)?;
        if !self.sessions.is_open(claims.sid, claims.sub).await.map_err(|_| AuthenticateError::Unavailable)? {
            return Err(AuthenticateError::Invalid);
        }
        Ok(Principal {
            organization_id: claims.org,
            actor: Actor::User { user_id: claims.sub, session_id: claims.sid },
            scopes: Scopes::known(claims.scope.split(' ')),
            requests_per_minute: None,
        })
    }

    async fn api_key(&self, text: &str) -> Result<Principal, AuthenticateError> {
        let key = PresentedKey::parse(text).ok_or(AuthenticateError::Invalid)?;
        let known = match self.remembered.as_ref().and_then(|remembered| remembered.remembered(key.sha256())) {
            Some(known) => known,
            None => self.look_up(&key).await?,
        };
        let known = known.filter(|key| key.expires_at.is_none_or(|end| self.clock.now() < end)).ok_or(AuthenticateError::Invalid)?;
        Ok(Principal {
            organization_id: known.organization_id,
            actor: Actor::ApiKey { api_key_id: known.api_key_id },
            scopes: known.scopes,
            requests_per_minute: known.requests_per_minute,
        })
    }

    async fn look_up(&self, key: &PresentedKey) -> Result<Option<VerifiedApiKey>, AuthenticateError> {
        let epoch = self.remembered.as_ref().map(Revocations::epoch);
        let span = tracing::info_span!("api_key.verify", otel.kind = "internal");
        let known = self.lookup.verify(key).instrument(span).await.map_err(|_| AuthenticateError::Unavailable)?;
        if let (Some(remembered), Some(epoch)) = (&self.remembered, epoch) {
            remembered.remember(key.sha256(), known.clone(), epoch);
        }
        Ok(known)
    }
}

/// The credential of `Authorization: Bearer …` (RFC 6750 section 2.1); the scheme's case does not matter.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credential) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}
