//! The usage event: what one governed request consumed. Appended once per request to its shard's stream
//! ([`Shard::usage_stream`](crate::Shard::usage_stream)) by the script that settles it, consumed by billing-service, which posts it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use identity::{ApiKeyId, OrganizationId, UserId};
use money::TokenUsage;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{LeaseId, RequestId};

/// The stream field that holds the event as JSON; the trace context is a field of its own (`traceparent`).
pub const FIELD: &str = "event";
/// The stream field that says how much of its lease the request took, in micro-units: its price, or all that was reserved when the
/// lease could not take the rest back.
pub const TAKEN: &str = "taken_micros";
/// The stream field that names the sums of money in which the request counts, by their keys in Redis: JSON, or empty when there is none.
/// What of its price turns out to be free is taken off them again.
pub const SUMS: &str = "sums";
/// The consumer group of billing-service.
pub const GROUP: &str = "billing";

/// How the token counts of a usage event came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CountedBy {
    /// The provider reported them.
    Reported,
    /// The gateway counted the delivered text with the model's tokenizer.
    Counted,
    /// Neither was possible: bounds were used.
    Estimated,
    /// Nobody settled before the deadline (the process died): what its last checkpoint counted is charged, and the rest released.
    Abandoned,
}

impl CountedBy {
    /// The text stored in the database and shown in APIs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Counted => "counted",
            Self::Estimated => "estimated",
            Self::Abandoned => "abandoned",
        }
    }
}

/// How the request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The provider finished its answer.
    Completed,
    /// The client left first; what the provider generated is charged.
    ClientClosed,
    /// The provider's answer broke off after it had begun.
    UpstreamCut,
    /// The provider refused or could not be reached; nothing was generated, nothing is charged.
    Failed,
    /// The total deadline passed.
    Deadline,
    /// The gateway was shutting down and the stream did not end within its grace.
    Shutdown,
}

impl Outcome {
    /// The text stored in the database and shown in APIs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientClosed => "client_closed",
            Self::UpstreamCut => "upstream_cut",
            Self::Failed => "failed",
            Self::Deadline => "deadline",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What one request consumed. Unique by `request_id`: a second event with the same id changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEvent {
    /// The request.
    pub request_id: RequestId,
    /// The lease it is paid from.
    pub lease_id: LeaseId,
    /// What was taken from the lease before the call, in micro-units: the most that the request could cost.
    pub reserved_micros: i64,
    /// The rate card by which it was admitted.
    pub rate_card_id: i64,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// The API key that called, if it was one.
    pub api_key_id: Option<ApiKeyId>,
    /// The user who called, if it was a session.
    pub user_id: Option<UserId>,
    /// The model as the client named it; the key of the rate card.
    pub model: String,
    /// The provider that served it (OpenTelemetry `gen_ai.provider.name`).
    pub provider: String,
    /// Tokens, in disjoint dimensions.
    pub usage: TokenUsage,
    /// How they were counted.
    pub counted_by: CountedBy,
    /// How the request ended.
    pub outcome: Outcome,
    /// When the request was admitted; the instant that decides the rate card.
    pub started_at: DateTime<Utc>,
    /// When the last byte came, or the end was noticed.
    pub ended_at: DateTime<Utc>,
    /// What the client tagged it with; a gateway before tags were recorded says nothing of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}
