//! What an organization may do: the private entitlements API of billing-service, and the news that it has changed.

use std::collections::BTreeSet;

use chassis::http::Client;
use chrono::{DateTime, Datelike, DurationRound, Months, TimeDelta, Utc};
use identity::{OrganizationId, ServiceTokens};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::billing::SERVICE;

/// The scope a caller of the entitlements API needs.
pub const SCOPE_ENTITLEMENTS_READ: &str = "entitlements:read";

/// The Redis stream of billing-service's events.
pub const BILLING_STREAM: &str = "trivet:events:billing";

/// `entitlements.changed`: what is cached of the organization is old; without an organization, of everybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntitlementsChanged {
    /// Whose.
    pub organization_id: Option<OrganizationId>,
}

impl EntitlementsChanged {
    /// The event's kind on the stream.
    pub const KIND: &'static str = "entitlements.changed";
}

/// What an organization may do. Without a plan: everything the wallet pays for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Entitlements {
    /// Whose.
    pub organization_id: OrganizationId,
    /// Grows with every change; what has a lower one is old.
    pub version: i64,
    /// The plans they come from; none when the wallet alone decides.
    pub plans: Vec<EntitledPlan>,
    /// What is unlocked.
    pub features: BTreeSet<String>,
    /// Models that may be called; absent for all that have a rate.
    pub models: Option<BTreeSet<String>>,
    /// Requests of the organization in a minute; absent for no limit of the plan.
    pub requests_per_minute: Option<u32>,
    /// Tokens of the organization, read and written, in a minute of the clock; absent for no limit of the plan.
    #[serde(default)]
    pub tokens_per_minute: Option<u32>,
    /// People who may be members; absent for no limit.
    pub seats: Option<u32>,
    /// What must not be exceeded, of plans and of hard budgets.
    pub spend_limits: Vec<SpendLimit>,
}

impl Entitlements {
    /// Whether a model may be called.
    #[must_use]
    pub fn allow_model(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.contains(model))
    }
}

/// A plan that gives access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntitledPlan {
    /// The plan.
    pub code: String,
    /// Its version.
    pub version: i32,
    /// `trialing`, `active` or `past_due`; `default` when nobody subscribed to it.
    pub status: String,
    /// Whether a payment is to be mended.
    pub grace: bool,
}

/// Whom a limit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// The organization.
    Organization,
    /// One of its users.
    User,
    /// One of its API keys.
    ApiKey,
    /// Requests of a model.
    Model,
    /// Requests with a tag.
    Tag,
}

impl LimitScope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Organization, Self::User, Self::ApiKey, Self::Model, Self::Tag];

    /// As it stands in messages, keys and rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::User => "user",
            Self::ApiKey => "api_key",
            Self::Model => "model",
            Self::Tag => "tag",
        }
    }
}

/// For how long a limit counts; calendar periods in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitPeriod {
    /// A minute.
    Minute,
    /// A day.
    Day,
    /// A month.
    Month,
}

impl LimitPeriod {
    /// Every period.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Day, Self::Month];

    /// As it stands in messages, keys and rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The period that an instant is in: its first instant, and the first one after it.
    #[must_use]
    pub fn bounds(self, at: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let rounded = |step: TimeDelta| at.duration_trunc(step).unwrap_or(at);
        match self {
            Self::Minute => (rounded(TimeDelta::minutes(1)), rounded(TimeDelta::minutes(1)) + TimeDelta::minutes(1)),
            Self::Day => (rounded(TimeDelta::days(1)), rounded(TimeDelta::days(1)) + TimeDelta::days(1)),
            Self::Month => {
                let start = rounded(TimeDelta::days(1)) - TimeDelta::days(i64::from(at.day0()));
                (start, start.checked_add_months(Months::new(1)).unwrap_or(DateTime::<Utc>::MAX_UTC))
            }
        }
    }
}

/// What must not be exceeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpendLimit {
    /// Whom it is for.
    pub scope: LimitScope,
    /// Which user, key, model or tag; empty for the organization.
    pub id: String,
    /// For how long it counts.
    pub period: LimitPeriod,
    /// The limit, in micro-units of `currency`. Reaching it is allowed, exceeding it is not.
    pub limit_micros: i64,
    /// ISO 4217 code.
    #[schema(example = "USD")]
    pub currency: String,
    /// What was spent of it before; only services are told, and not of a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub spent: Option<Spent>,
}

/// What was spent in a period, as far as it was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The period's first instant.
    pub since: DateTime<Utc>,
    /// How much, in micro-units.
    pub micros: i64,
}

/// It cannot be known right now what the organization may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("billing cannot answer right now")]
pub struct EntitlementsUnavailable;

/// Reads entitlements at billing-service, as a service.
#[derive(Debug, Clone)]
pub struct EntitlementsClient {
    client: Client,
    tokens: ServiceTokens,
}

impl EntitlementsClient {
    /// A client of the private listener behind `client`.
    #[must_use]
    pub const fn new(client: Client, tokens: ServiceTokens) -> Self {
        Self { client, tokens }
    }

    /// What the organization may do. Any doubt is an error: a caller that cannot know must not guess.
    ///
    /// # Errors
    /// [`EntitlementsUnavailable`].
    pub async fn get(&self, organization: OrganizationId) -> Result<Entitlements, EntitlementsUnavailable> {
        let token = self.tokens.get(SERVICE, SCOPE_ENTITLEMENTS_READ).await.map_err(|_| EntitlementsUnavailable)?;
        let path = format!("/internal/v1/entitlements/{organization}");
        let sent = self.client.request(Method::GET, &path).bearer_auth(token).send().await;
        let response = sent.and_then(reqwest::Response::error_for_status);
        let response = response.inspect_err(|error| tracing::warn!(error.message = %error, "entitlements could not be had"));
        response.map_err(|_| EntitlementsUnavailable)?.json().await.map_err(|_| EntitlementsUnavailable)
    }
}
