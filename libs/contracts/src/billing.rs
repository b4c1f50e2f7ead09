//! The private API of billing-service: holds for single requests (`/internal/v1/reservations`), and a client for what the gateway asks.

use chassis::http::Client;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use identity::{ApiKeyId, OrganizationId, ServiceTokens, UserId};
use money::TokenUsage;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::leases::{Lease, LeaseError, LeaseRequest, SCOPE_LEASES_WRITE};
use crate::rates::PriceList;
use crate::usage::{CountedBy, Outcome, UsageEvent};
use crate::{RequestId, ReservationId};

/// The name billing-service goes by as an audience of service tokens.
pub const SERVICE: &str = "billing-service";
/// The scope a caller of the reservation API needs.
pub const SCOPE_RESERVATIONS_WRITE: &str = "reservations:write";
/// The scope of who reads as an operator.
pub const SCOPE_ADMIN_READ: &str = "billing:admin:read";
/// The scope of who decides as an operator.
pub const SCOPE_ADMIN_WRITE: &str = "billing:admin:write";
/// The scope of who reads what is earned.
pub const SCOPE_MARGIN_READ: &str = "margin:read";

/// Problem code of 402: the wallet does not reach.
pub const CODE_INSUFFICIENT_FUNDS: &str = "insufficient_funds";
/// Problem code of 404: the model has no rate card at this instant; it is refused, never free.
pub const CODE_MODEL_NOT_PRICED: &str = "model_not_priced";
/// Problem code of 409: the request id was used before with another body, or is settled with another result.
pub const CODE_RESERVATION_CONFLICT: &str = "reservation_conflict";

/// Not told: a request that was made before there was the field is the same request.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_none(images: &u64) -> bool {
    *images == 0
}

/// `POST /internal/v1/reservations`: hold the worst-case cost of a request. Idempotent by `request_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReservationRequest {
    /// The request to reserve for.
    pub request_id: RequestId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// The API key that called, if it was one.
    pub api_key_id: Option<ApiKeyId>,
    /// The user who called, if it was a session.
    pub user_id: Option<UserId>,
    /// The model as the client named it; the key of the rate card.
    #[schema(max_length = 200)]
    pub model: String,
    /// The provider that will serve it.
    #[schema(max_length = 100)]
    pub provider: String,
    /// Upper bound of prompt tokens.
    pub max_input_tokens: u64,
    /// Upper bound of generated tokens.
    pub max_output_tokens: u64,
    /// Whether some of them may be audio, which has rates of its own.
    pub audio: bool,
    /// Upper bound of images that are paid by the piece.
    #[serde(default, skip_serializing_if = "is_none")]
    pub max_images: u64,
    /// When the hold ends by itself if nobody settles it.
    pub expires_at: DateTime<Utc>,
}

/// The hold that was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reservation {
    /// The hold.
    pub id: ReservationId,
    /// What it was placed for.
    pub request_id: RequestId,
    /// ISO 4217 code.
    #[schema(example = "USD")]
    pub currency: String,
    /// The amount held, in micro-units of the currency.
    pub amount_micros: i64,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
}

/// `POST /internal/v1/reservations/{id}/settle`: post what was used and return the rest. The stream of usage events does
/// the same; this is for callers that need the answer at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleRequest {
    /// Tokens, in disjoint dimensions.
    pub usage: TokenUsage,
    /// How they were counted.
    pub counted_by: CountedBy,
    /// How the request ended.
    pub outcome: Outcome,
    /// When the request was admitted; the instant that decides the rate card.
    pub started_at: DateTime<Utc>,
    /// When the request ended.
    pub ended_at: DateTime<Utc>,
}

/// What a settlement posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settlement {
    /// The settled request.
    pub request_id: RequestId,
    /// ISO 4217 code.
    #[schema(example = "USD")]
    pub currency: String,
    /// What the organization was charged, in micro-units.
    pub price_micros: i64,
    /// What the provider charges us, in micro-units.
    pub cost_micros: i64,
}

/// `POST /internal/v1/reservations/{id}/void`: give the whole hold back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VoidRequest {
    /// Why, for the audit trail.
    #[schema(max_length = 200)]
    pub reason: String,
}

/// Why a settlement was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// It will not be taken: the request was settled in another way, or what it names is unknown.
    #[error("billing refuses the settlement")]
    Refused,
    /// It cannot be known right now whether it was taken.
    #[error("billing cannot answer right now")]
    Unavailable,
}

/// Asks billing-service, as a service.
#[derive(Debug, Clone)]
pub struct BillingClient {
    client: Client,
    tokens: ServiceTokens,
}

impl BillingClient {
    /// A client of the private listener behind `client`.
    #[must_use]
    pub fn new(client: Client, tokens: ServiceTokens) -> Self {
        Self { client, tokens }
    }

    /// Asks that a lease reach. Asked again, it is filled once: what was seen tells whether somebody else was served meanwhile.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn lease(&self, request: &LeaseRequest) -> Result<Lease, LeaseError> {
        let response = self.send(Method::POST, "/internal/v1/leases", Some(request)).await.ok_or(LeaseError::Unavailable)?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(|_| LeaseError::Unavailable);
        }
        let problem: Option<ProblemBody> = response.json().await.ok();
        match problem.as_ref().map(|problem| problem.code.as_str()) {
            Some(CODE_INSUFFICIENT_FUNDS) => Err(LeaseError::InsufficientFunds),
            code => {
                tracing::warn!(http.response.status_code = status.as_u16(), problem.code = code, "no lease could be had");
                Err(LeaseError::Unavailable)
            }
        }
    }

    /// All cards that are in force or will be; none when billing-service does not answer.
    pub async fn price_list(&self) -> Option<PriceList> {
        let response = self.send(Method::GET, "/internal/v1/rate-cards", None::<&()>).await?;
        let status = response.status();
        if !status.is_success() {
            tracing::warn!(http.response.status_code = status.as_u16(), "the price list could not be read");
            return None;
        }
        response.json().await.ok()
    }

    /// Posts what a request used, for a caller that cannot wait for the stream of usage events. The second of both changes nothing.
    ///
    /// # Errors
    /// [`SettleError`].
    pub async fn settle(&self, event: &UsageEvent) -> Result<(), SettleError> {
        let response = self.send(Method::POST, "/internal/v1/settlements", Some(event)).await.ok_or(SettleError::Unavailable)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // Only these say something about the request; anything else is about us or about now.
            status if matches!(status.as_u16(), 404 | 409 | 422) => {
                tracing::warn!(http.response.status_code = status.as_u16(), "a settlement was refused");
                Err(SettleError::Refused)
            }
            _ => Err(SettleError::Unavailable),
        }
    }

    /// The answer, if there is one.
    async fn send(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Option<reqwest::Response> {
        let token = self.tokens.get(SERVICE, SCOPE_LEASES_WRITE).await.ok()?;
        let mut request = self.client.request(method, path).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.inspect_err(|error| tracing::warn!(error.message = %error, "billing-service did not answer")).ok()
    }
}
