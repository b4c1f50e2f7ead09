//! Extractors: the caller of a public route, and the calling service of a private one.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use chassis::{Clock, Problem};
use http::request::Parts;

use crate::authenticator::{AuthenticateError, Authenticator, MissingScope, Principal, bearer};
use crate::claims::ServiceClaims;
use crate::jwks::KeySource;
use crate::jwt::{ACCESS_TOKEN, key_id, verify};

/// The recognized caller of a public route.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Principal);

impl<S> FromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    Authenticator: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(Authenticator::from_ref(state).authenticate(&parts.headers).await?))
    }
}

impl From<AuthenticateError> for Problem {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Missing | AuthenticateError::Invalid => Self::unauthorized(),
            AuthenticateError::Unavailable => Self::unavailable("the check of credentials"),
        }
    }
}

impl From<MissingScope> for Problem {
    fn from(error: MissingScope) -> Self {
        Self::forbidden().detail(error.to_string())
    }
}

/// Recognizes services on private routes: tokens for this audience only [I-76].
#[derive(Clone)]
pub struct ServiceAuthenticator {
    issuer: Arc<str>,
    audience: &'static str,
    keys: Arc<dyn KeySource>,
    clock: Clock,
}

impl std::fmt::Debug for ServiceAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAuthenticator").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl ServiceAuthenticator {
    /// For the service that goes by `audience`.
    #[must_use]
    pub fn new(issuer: &str, audience: &'static str, keys: Arc<dyn KeySource>, clock: Clock) -> Self {
        Self { issuer: issuer.into(), audience, keys, clock }
    }

    async fn authenticate(&self, token: &str) -> Result<CallingService, AuthenticateError> {
        let kid = key_id(token, ACCESS_TOKEN).map_err(|_| AuthenticateError::Invalid)?;
        let key = self.keys.key(&kid).await.map_err(|_| AuthenticateError::Unavailable)?.ok_or(AuthenticateError::Invalid)?;
        let claims: ServiceClaims =
            verify(token, &key, &self.issuer, self.audience, self.clock.now()).map_err(|_| AuthenticateError::Invalid)?;
        Ok(CallingService { name: claims.sub, scopes: claims.scope })
    }
}

/// The service that calls a private route.
#[derive(Debug, Clone)]
pub struct CallingService {
    /// Its name.
    pub name: String,
    scopes: String,
}

impl CallingService {
    /// Refuses when the scope is missing.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, scope: &str) -> Result<(), Problem> {
        if self.scopes.split(' ').any(|known| known == scope) { Ok(()) } else { Err(Problem::forbidden()) }
    }
}

impl<S> FromRequestParts<S> for CallingService
where
    S: Send + Sync,
    ServiceAuthenticator: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).ok_or_else(Problem::unauthorized)?;
        Ok(ServiceAuthenticator::from_ref(state).authenticate(token).await?)
    }
}
