//! Tokens with which a service calls another: short, for one audience, obtained with the service's own key (RFC 7523) [I-76].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chassis::http::Client;
use chassis::{Clock, ExposeSecret, Random, SecretString};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api_key::LookupUnavailable;
use crate::claims::ServiceClaims;
use crate::fetched::Fetched;
use crate::jwt::{CLIENT_ASSERTION, SigningKey};

/// How long an assertion may be presented.
pub const ASSERTION_SECONDS: i64 = 60;
/// A token is replaced this long before it ends.
const RENEW_BEFORE: TimeDelta = TimeDelta::seconds(60);
/// A token with less left than this is over: it has yet to travel.
const TRAVEL: TimeDelta = TimeDelta::seconds(5);

/// `POST /internal/v1/service-tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceTokenRequest {
    /// A JWT signed by the service's own key: `iss` = `sub` = `client_id` = its name, `aud` = the issuer, used once.
    pub client_assertion: String,
    /// The service to call.
    pub audience: String,
    /// What for.
    pub scope: String,
}

/// A token for one service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServiceTokenResponse {
    /// The token.
    pub access_token: String,
    /// `Bearer`
    pub token_type: String,
    /// Seconds until it ends.
    pub expires_in: i64,
}

/// Gets and keeps the tokens of one service; cheap to clone. A held token serves until its end, whatever becomes of its renewal.
#[derive(Debug, Clone)]
pub struct ServiceTokens(Arc<Inner>);

/// Audience and scope.
type Purpose = (&'static str, &'static str);

#[derive(Debug)]
struct Inner {
    service: &'static str,
    issuer: String,
    key: SigningKey,
    client: Client,
    clock: Clock,
    random: Random,
    held: Mutex<HashMap<Purpose, Arc<Fetched<Held>>>>,
}

/// A token and its end.
#[derive(Debug, Clone)]
struct Held {
    token: SecretString,
    end: DateTime<Utc>,
}

impl ServiceTokens {
    /// Tokens for `service`, proved by its key, from auth-service behind `client`.
    #[must_use]
    pub fn new(service: &'static str, issuer: &str, key: SigningKey, client: Client, clock: Clock, random: Random) -> Self {
        Self(Arc::new(Inner { service, issuer: issuer.to_owned(), key, client, clock, random, held: Mutex::default() }))
    }

    /// A token for the audience and scope, from memory or new.
    ///
    /// # Errors
    /// When none is held and auth-service gives none right now.
    pub async fn get(&self, audience: &'static str, scope: &'static str) -> Result<String, LookupUnavailable> {
        let (held, now) = (self.held((audience, scope)), self.0.clock.now());
        let good = |_, held: &Held| now < held.end - RENEW_BEFORE;
        let tokens = self.clone();
        let fetch = async move { tokens.fetch(audience, scope).await };
        let token = match held.known().map(|(_, known)| known).filter(|known| now < known.end - TRAVEL) {
            Some(known) => {
                held.renew(good, fetch);
                known.token
            }
            None => held.get(good, fetch).await?.token,
        };
        Ok(token.expose_secret().to_owned())
    }

    fn held(&self, purpose: Purpose) -> Arc<Fetched<Held>> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.entry(purpose).or_insert_with(|| Arc::new(Fetched::new(self.0.clock.clone()))))
    }

    async fn fetch(&self, audience: &str, scope: &str) -> Result<Held, LookupUnavailable> {
        let now = self.0.clock.now();
        let answer = self.request(audience, scope, now).await?;
        Ok(Held { token: answer.access_token.into(), end: now + TimeDelta::seconds(answer.expires_in) })
    }

    async fn request(&self, audience: &str, scope: &str, now: DateTime<Utc>) -> Result<ServiceTokenResponse, LookupUnavailable> {
        let request =
            ServiceTokenRequest { client_assertion: self.assertion(now)?, audience: audience.to_owned(), scope: scope.to_owned() };
        let sent = self.0.client.request(Method::POST, "/internal/v1/service-tokens").json(&request).send().await;
        let response = sent.and_then(reqwest::Response::error_for_status).map_err(|error| {
            tracing::warn!(error.message = %error.without_url(), "no service token could be had");
            LookupUnavailable
        })?;
        response.json().await.map_err(|_| LookupUnavailable)
    }

    fn assertion(&self, now: DateTime<Utc>) -> Result<String, LookupUnavailable> {
        let name = self.0.service.to_owned();
        let claims = ServiceClaims {
            iss: name.clone(),
            aud: self.0.issuer.clone(),
            exp: now.timestamp() + ASSERTION_SECONDS,
            nbf: now.timestamp(),
            iat: now.timestamp(),
            sub: name.clone(),
            client_id: name,
            jti: self.0.random.uuid_v7(&self.0.clock).simple().to_string(),
            scope: String::new(),
        };
        self.0.key.sign(CLIENT_ASSERTION, &claims).map_err(|_| LookupUnavailable)
    }
}
