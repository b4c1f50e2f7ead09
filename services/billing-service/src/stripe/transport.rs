//! How requests that async-stripe builds reach Stripe: one try each, over connections that stay open, within a time limit.
//!
//! Our own transport under async-stripe's `StripeClient`, because its client opens a connection for each call, has no time limit
//! of its own, hides `Retry-After`, and reads errors into types that hold nearly every object of Stripe's: fifteen megabytes of
//! program. Trying again is the caller's business: it has the idempotency key in its database.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use chassis::{ExposeSecret, Random, SecretString};
use identity::OrganizationId;
use reqwest::{Client, Method, Response};
use serde::Deserialize;
use serde_json::Value;
use stripe_client_core::{CustomizedStripeRequest, StripeClient, StripeClientErr, StripeMethod, VERSION};
use tracing::Instrument;

use super::call::Call;
use super::pace::Pace;
use super::patience::{PATIENCE, asker, retry, waited_for};
use crate::places::{Place, Places};

/// Longest time that one call may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long a place is waited for.
const PATIENCE_FOR_PLACE: Duration = Duration::from_secs(5);
/// Requests at once that ask Stripe each time they are made ([`Transport::place`]).
const PLACES: usize = 64;
/// Of them those of one organization: two people may look at its cards and open the portal.
const PLACES_OF_ONE: usize = 4;

/// Why a call did not succeed. Nothing of Stripe's prose: it may quote what customers typed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Stripe refused.
    #[error("Stripe answered {status} ({code}), request {request_id}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stripe's `code`, or else its `type`.
        code: String,
        /// Stripe's `Request-Id`.
        request_id: String,
        /// `Stripe-Should-Retry`: what Stripe itself says.
        should_retry: Option<bool>,
        /// `Retry-After`.
        retry_after: Option<Duration>,
        /// The parameter that it is about, by its name in a form.
        param: Option<String>,
        /// Whether it says that a meter event with this identifier is there. Stripe has a code for that and does not always send it.
        duplicate_event: bool,
    },
    /// There was no answer: whether there was an effect is not known.
    #[error("Stripe cannot be reached: {0}")]
    Unreachable(reqwest::Error),
    /// There was no answer while somebody waited for it: whether there was an effect, or will be, is not known. Or so many wait already that there
    /// would be none, and nothing was asked.
    #[error("Stripe did not answer in time")]
    Late,
    /// The answer is not what was expected.
    #[error("the answer of Stripe cannot be read: {0}")]
    Unreadable(String),
}

impl TransportError {
    /// How long Stripe wants us to stay away, when it says so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The HTTP status, if Stripe answered.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Stripe's code, if it refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether Stripe has a meter event with this identifier: it was taken before, which is what was wanted [B-66].
    #[must_use]
    pub const fn is_duplicate_event(&self) -> bool {
        matches!(self, Self::Refused { duplicate_event: true, .. })
    }

    /// Whether Stripe has nothing of that name.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the same call cannot succeed without somebody changing something.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Refused { should_retry: Some(again), .. } => !*again,
            Self::Refused { status, .. } => matches!(status, 400..=408 | 410..=428),
            _ => false,
        }
    }
}

impl StripeClientErr for TransportError {
    fn deserialize_err(message: impl Display) -> Self {
        Self::Unreadable(message.to_string())
    }
}

/// Stripe's API; cheap to clone.
#[derive(Debug, Clone)]
pub struct Transport {
    client: Client,
    base: String,
    key: SecretString,
    pace: Pace,
    places: Places,
    random: Random,
}

impl Transport {
    /// The API behind `base`, with a secret key, asked so many times in a second at most (0: no limit).
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(base: &str, key: SecretString, per_second: u32, random: Random) -> Result<Self, reqwest::Error> {
        let client = chassis::http::client::builder().connect_timeout(Duration::from_secs(5)).timeout(TIMEOUT).build()?;
        let (base, pace) = (format!("{}/v1", base.trim_end_matches('/')), Pace::of(per_second));
        Ok(Self { client, base, key, pace, places: Places::new(PLACES, PLACES_OF_ONE), random })
    }

    /// A place, until it is dropped, for a request of an organization's that asks Stripe each time it is made. The organization has few, so that it
    /// does not take the turns of all who wait for an answer, however often it asks.
    ///
    /// # Errors
    /// [`TransportError::Late`] when there is none left.
    pub fn place(&self, organization: OrganizationId) -> Result<Place, TransportError> {
        self.places.take(organization).map_err(|_| TransportError::Late)
    }

    /// The same, where several at once are nothing out of the ordinary, as people have tabs: one waits for the other for some seconds.
    ///
    /// # Errors
    /// [`TransportError::Late`] when none came free.
    pub async fn wait_for_place(&self, organization: OrganizationId) -> Result<Place, TransportError> {
        self.places.wait(organization, PATIENCE_FOR_PLACE).await.map_err(|_| TransportError::Late)
    }

    /// Sends a request of our own making, once. The answer is read as it is: a field that is missing is missed where it is needed, and
    /// not where the answer is read [B28].
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn ask(&self, call: &Call) -> Result<Value, TransportError> {
        let answer = self.send(call.method.clone(), &call.path, &call.query(), call.body(), call.key()).await?;
        serde_json::from_slice(&answer).map_err(|error| TransportError::Unreadable(error.to_string()))
    }

    /// The same for somebody who waits for the answer, a few seconds in all: tried again with the same key, as Stripe wants it.
    ///
    /// # Errors
    /// [`TransportError`] of the last try; [`TransportError::Late`], at once, when too many wait already.
    pub async fn ask_patiently(&self, call: &Call) -> Result<Value, TransportError> {
        waited_for(retry(&self.random, PATIENCE, || self.ask(call))).await
    }

    /// The same where nobody waits, but a failure would have much begun anew: as long as one call may take.
    ///
    /// # Errors
    /// [`TransportError`] of the last try.
    pub(super) async fn ask_at_leisure(&self, call: &Call) -> Result<Value, TransportError> {
        retry(&self.random, TIMEOUT, || self.ask(call)).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &str,
        body: Option<String>,
        key: Option<&str>,
    ) -> Result<Bytes, TransportError> {
        let route = super::call::route(path);
        let span = tracing::info_span!("stripe", otel.name = %format!("{method} {route}"), otel.kind = "client", http.request.method = %method,
            url.template = %route, http.response.status_code = tracing::field::Empty);
        async {
            self.pace.turn(asker()).await?;
            let mut call = self.client.request(method, format!("{}{path}{query}", self.base));
            call = call.bearer_auth(self.key.expose_secret()).header("stripe-version", VERSION.as_str());
            if let Some(key) = key {
                call = call.header("idempotency-key", key);
            }
            if let Some(body) = body {
                call = call.header("content-type", "application/x-www-form-urlencoded").body(body);
            }
            let answer = call.send().await.map_err(|error| TransportError::Unreachable(error.without_url()))?;
            tracing::Span::current().record("http.response.status_code", answer.status().as_u16());
            if !answer.status().is_success() {
                return Err(refused(answer).await);
            }
            answer.bytes().await.map_err(|error| TransportError::Unreachable(error.without_url()))
        }
        .instrument(span)
        .await
    }
}

impl StripeClient for Transport {
    type Err = TransportError;

    async fn execute(&self, request: CustomizedStripeRequest) -> Result<Bytes, TransportError> {
        let (request, overrides) = request.into_pieces();
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
        let key = overrides.request_strategy.and_then(|strategy| strategy.get_key());
        self.send(method, &request.path, &query, request.body, key.as_ref().map(stripe_client_core::IdempotencyKey::as_str)).await
    }
}

/// What is read of an error's body.
#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorPart,
}

#[derive(Deserialize, Default)]
struct ErrorPart {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    param: Option<String>,
    #[serde(default)]
    message: String,
}

async fn refused(answer: Response) -> TransportError {
    let status = answer.status().as_u16();
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let request_id = header("request-id").unwrap_or_default();
    let should_retry = header("stripe-should-retry").and_then(|text| text.parse().ok());
    let retry_after = header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    // An error without a readable body is still an error with a status.
    let body: ErrorBody = answer.json().await.unwrap_or_default();
    let ErrorPart { kind, code, param, message } = body.error;
    // The one thing that is read of Stripe's prose: of a duplicate it may say no more than `invalid_request_error`.
    let duplicate_event = code.as_deref() == Some("duplicate_meter_event") || message.contains("event already exists with identifier");
    let code = code.or(kind).unwrap_or_else(|| "unknown".to_owned());
    TransportError::Refused { status, code, request_id, should_retry, retry_after, param, duplicate_event }
}
