//! Subscriptions and prices as the API shows them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::SubscriptionId;
use super::period::Period;
use super::state::{Charge, Line};
use super::status::{Access, Status};
use super::store::Stored;
use crate::catalog::Interval;

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubscriptionView {
    /// Its id.
    id: SubscriptionId,
    /// Where it stands.
    status: Status,
    /// What that gives access to.
    access: Access,
    /// The plan's code.
    plan: String,
    /// Its version: a new catalogue changes nothing for who is there.
    plan_version: i32,
    /// ISO 4217 code.
    #[schema(example = "USD")]
    currency: String,
    /// How often is paid.
    interval: Interval,
    /// How many seats.
    seats: u32,
    /// The period it is in; in a trial, the trial.
    period: Period,
    /// Whether it ends with its period.
    cancel_at_period_end: bool,
    /// What it becomes when its period ends.
    pending: Option<PendingView>,
    /// The code of the coupon that takes something off.
    coupon: Option<String>,
    /// Until when a failed payment may be mended.
    grace_until: Option<DateTime<Utc>>,
    /// When it began.
    started_at: DateTime<Utc>,
}

/// What a subscription becomes.
#[derive(Debug, Serialize, ToSchema)]
pub struct PendingView {
    /// The plan's code.
    plan: String,
    /// Its version.
    plan_version: i32,
    /// How often is paid.
    interval: Interval,
    /// How many seats.
    seats: u32,
}

/// The living subscriptions, at most one for each group of plans.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubscriptionList {
    /// Oldest first.
    pub data: Vec<SubscriptionView>,
}

impl From<Stored> for SubscriptionView {
    fn from(stored: Stored) -> Self {
        let Stored { id, subscription } = stored;
        let pending = subscription.pending.map(|pending| PendingView {
            plan: pending.terms.plan.to_string(),
            plan_version: pending.terms.version,
            interval: pending.terms.interval,
            seats: pending.seats,
        });
        Self {
            id,
            status: subscription.status,
            access: subscription.status.access(),
            plan: subscription.terms.plan.to_string(),
            plan_version: subscription.terms.version,
            currency: subscription.terms.currency.code().to_owned(),
            interval: subscription.terms.interval,
            seats: subscription.seats,
            period: subscription.period,
            cancel_at_period_end: subscription.cancel_at_period_end,
            pending,
            coupon: subscription.coupon.map(|coupon| coupon.code.to_string()),
            grace_until: subscription.grace_until,
            started_at: subscription.started_at,
        }
    }
}

/// Something to be paid.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChargeView {
    /// In micro-units, before tax.
    total_micros: i64,
    /// What it consists of; the total is their sum.
    lines: Vec<Line>,
}

impl From<Charge> for ChargeView {
    fn from(charge: Charge) -> Self {
        Self { total_micros: charge.total_micros, lines: charge.lines }
    }
}

/// When a change comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effective {
    /// At once.
    Now,
    /// When the period ends.
    PeriodEnd,
}

/// What a change would cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewView {
    /// When it would come into force.
    pub effective: Effective,
    /// ISO 4217 code.
    #[schema(example = "USD")]
    pub currency: String,
    /// To be paid at once; absent when nothing is.
    pub now: Option<ChargeView>,
    /// To be paid when the period ends; absent when nothing is.
    pub next: Option<ChargeView>,
    /// When that is; absent when nothing comes by itself.
    pub next_at: Option<DateTime<Utc>>,
}
