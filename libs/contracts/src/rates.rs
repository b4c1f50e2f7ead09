//! The private price list of billing-service (`GET /internal/v1/rate-cards`), by which requests are admitted.

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use money::Schedule;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All cards that are in force or will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceList {
    /// The cards.
    pub data: Vec<PricedModel>,
}

/// What a model costs the customer, from one instant to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PricedModel {
    /// The card's id, kept with what it priced [B-31].
    pub rate_card_id: i64,
    /// The model as clients name it.
    pub model: String,
    /// The one organization it is for, instead of the card for everybody.
    pub organization_id: Option<OrganizationId>,
    /// From this instant.
    pub valid_from: DateTime<Utc>,
    /// Until just before this one.
    pub valid_to: Option<DateTime<Utc>>,
    /// The rates.
    #[schema(value_type = Object)]
    pub price: Schedule,
}

impl PricedModel {
    /// Whether it is in force; validity is half-open [B-31].
    #[must_use]
    pub fn is_in_force(&self, at: DateTime<Utc>) -> bool {
        self.valid_from <= at && self.valid_to.is_none_or(|end| at < end)
    }
}
