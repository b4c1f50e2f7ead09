//! A subscription as the machine knows it, and what the machine wants done.

use chrono::{DateTime, TimeDelta, Utc};
use money::Currency;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::command::AppliedCoupon;
use super::period::Period;
use super::status::Status;
use super::terms::Terms;

/// How long the first payment may take; Stripe's limit.
pub const INCOMPLETE_HOURS: i64 = 23;

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Where it stands.
    pub status: Status,
    /// What was agreed.
    pub terms: Terms,
    /// How many seats.
    pub seats: u32,
    /// What the periods are counted from.
    pub anchor: DateTime<Utc>,
    /// Which of them it is in, from zero.
    pub number: u32,
    /// The period it is in; in a trial, the trial.
    pub period: Period,
    /// The period that the charge was of which paid for this one, where that is another: it was over when it was paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_by: Option<DateTime<Utc>>,
    /// What the customer pays for the whole of the period as it is now, after discounts: what is left of it is counted from this.
    pub value_micros: i64,
    /// The most credit for the whole of the period that was given or promised in it: a change within the period brings what is beyond.
    /// Zero in what was stored before this was kept; the credit of the terms is given or promised in any case.
    #[serde(default)]
    pub credited_micros: i64,
    /// Whether it ends with its period.
    pub cancel_at_period_end: bool,
    /// What it becomes when its period ends.
    pub pending: Option<Pending>,
    /// What is taken off.
    pub coupon: Option<AppliedCoupon>,
    /// Charges that were not paid yet.
    pub open: Vec<OpenCharge>,
    /// Until when a failed payment may be mended.
    pub grace_until: Option<DateTime<Utc>>,
    /// When changes were taken back for which nobody paid, for as long as that is remembered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_back: Vec<DateTime<Utc>>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// How often it was changed.
    pub revision: i64,
}

/// What a subscription becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The terms.
    pub terms: Terms,
    /// The seats.
    pub seats: u32,
}

/// A charge that was not paid yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCharge {
    /// Of the period that began then.
    pub period_start: DateTime<Utc>,
    /// For what.
    pub reason: String,
    /// Whether an attempt failed.
    pub failed: bool,
    /// Whether nobody is to pay it any more: the subscription ended over it, or what it was for was taken back.
    #[serde(default)]
    pub given_up: bool,
    /// Credit that is given when it is paid.
    pub grant: Option<Grant>,
    /// What was agreed before the change that it is for, as long as that can be taken back: nothing that stands was built on it. None for
    /// whole periods, and in what was stored before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Agreed>>,
}

/// What was agreed, and for which period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// As in [`Subscription`], all of it.
    pub terms: Terms,
    /// How many seats.
    pub seats: u32,
    /// What the periods are counted from.
    pub anchor: DateTime<Utc>,
    /// Which of them it was in.
    pub number: u32,
    /// That period.
    pub period: Period,
    /// What the customer pays for the whole of it.
    pub value_micros: i64,
    /// The credit for the whole of it.
    pub credited_micros: i64,
    /// What it was to become when the period ends.
    pub pending: Option<Pending>,
    /// What was taken off.
    pub coupon: Option<AppliedCoupon>,
}

/// What a line of a charge is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    /// The plan for the period.
    Plan,
    /// Seats beyond those included, for the period.
    Seats,
    /// What is left of what was paid; below zero.
    Unused,
    /// The rest of the period on new terms.
    Remaining,
    /// What a coupon takes off; below zero.
    Discount,
}

/// A line of a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    /// What it is about.
    pub kind: LineKind,
    /// Of which plan, or by which coupon.
    #[schema(value_type = String)]
    pub code: crate::catalog::Code,
    /// In micro-units; below zero when it is taken off.
    pub amount_micros: i64,
    /// From when to when.
    pub period: Period,
}

/// Something to be paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Of the period that began then.
    pub period_start: DateTime<Utc>,
    /// For what; with the period unique for the subscription.
    pub reason: String,
    /// In what.
    pub currency: Currency,
    /// What it consists of.
    pub lines: Vec<Line>,
    /// The sum of the lines, at least zero.
    pub total_micros: i64,
}

/// Credit to be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of the period that began then.
    pub period_start: DateTime<Utc>,
    /// For what; with the period unique for the subscription.
    pub reason: String,
    /// In what.
    pub currency: Currency,
    /// How much.
    pub amount_micros: i64,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// So many days after it is given, where that is how it was agreed; none in what was stored before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

/// What is to be done about a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Collect this.
    Charge(Charge),
    /// Give this: it was paid for.
    Grant(Grant),
    /// Give this though nothing was to be paid for it, unless another subscription of the group has given for the month already.
    Gift(Grant),
    /// Collect this charge no longer: the subscription ended over it, or what it was for was taken back.
    GiveUp {
        /// Of the period that began then.
        period_start: DateTime<Utc>,
        /// For what it was.
        reason: String,
    },
    /// Pay this charge back: it was paid when it no longer could have an effect.
    Refund {
        /// Of the period that began then.
        period_start: DateTime<Utc>,
        /// For what it was.
        reason: String,
    },
    /// What the customer may do has changed.
    EntitlementsChanged,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The subscription afterwards.
    pub subscription: Subscription,
    /// What is to be done.
    pub effects: Vec<Effect>,
}

impl OpenCharge {
    /// Whether it was not paid when it was to be, and is waited for.
    #[must_use]
    pub const fn is_owed(&self) -> bool {
        self.failed && !self.given_up
    }
}

impl Subscription {
    /// The credit for the whole of the period that the customer has, or is promised, in micro-units.
    #[must_use]
    pub fn credited(&self) -> i64 {
        self.credited_micros.max(self.terms.credit_micros())
    }

    /// When the clock is to look at it again, if it is.
    #[must_use]
    pub fn next_action_at(&self) -> Option<DateTime<Utc>> {
        match self.status {
            Status::Incomplete => Some(self.started_at + TimeDelta::hours(INCOMPLETE_HOURS)),
            Status::Trialing | Status::Active => Some(self.period.end),
            Status::PastDue if self.cancel_at_period_end => self.grace_until.map(|until| until.min(self.period.end)),
            Status::PastDue => self.grace_until,
            Status::Unpaid | Status::Paused | Status::IncompleteExpired | Status::Canceled => None,
        }
    }

    /// Whether it begins with a trial as soon as there is a card to charge after it.
    #[must_use]
    pub fn waits_for_card(&self) -> bool {
        self.status == Status::Incomplete && self.open.is_empty()
    }

    /// The charge, if it is still open.
    #[must_use]
    pub fn open_charge(&self, period_start: DateTime<Utc>, reason: &str) -> Option<&OpenCharge> {
        self.open.iter().find(|charge| charge.period_start == period_start && charge.reason == reason)
    }

    /// Whether another period follows when this one ends.
    #[must_use]
    pub const fn renews(&self) -> bool {
        matches!(self.status, Status::Trialing | Status::Active) && !self.cancel_at_period_end
    }

    /// The credit that comes with a charge that is still open, when it is paid at this instant.
    #[must_use]
    pub fn promised(&self, period_start: DateTime<Utc>, reason: &str, now: DateTime<Utc>) -> Option<Grant> {
        let grant = self.open_charge(period_start, reason)?.grant.clone()?;
        let expires_at = match (grant.days, self.begun_by(period_start, reason, now)) {
            // Counted from when it is given, whichever period it is of.
            (Some(days), _) => Some(now + TimeDelta::days(i64::from(days))),
            (None, Some(period)) => self.terms.credit.and_then(|credit| credit.expires_at(period, now)),
            (None, None) => grant.expires_at,
        };
        Some(Grant { expires_at, ..grant })
    }

    /// The period that begins when this charge is paid at this instant: who pays for a whole period after it is over, of which he had no
    /// more than the grace, has one from then on for it, and does not pay for two. None while the period lasts, and where something else
    /// is owed or wanted.
    #[must_use]
    pub fn begun_by(&self, period_start: DateTime<Utc>, reason: &str, now: DateTime<Utc>) -> Option<Period> {
        let is_this = |charge: &OpenCharge| charge.period_start == period_start && charge.reason == reason;
        let is_whole = period_start == self.period.start && reason == "renewal" && self.open.iter().any(is_this);
        let is_late = self.status == Status::Unpaid && now >= self.period.end && !self.cancel_at_period_end;
        let owes_more = self.open.iter().any(|charge| charge.is_owed() && !is_this(charge));
        (is_whole && is_late && !owes_more).then(|| Period::nth(now, self.terms.interval, 0))
    }

    /// Whether money for this comes too late: it never began, and does not begin any more, or it ended over this, or went on without.
    #[must_use]
    pub fn refuses_payment(&self, period_start: DateTime<Utc>, reason: &str) -> bool {
        let given_up = |charge: &OpenCharge| charge.given_up && charge.period_start == period_start && charge.reason == reason;
        self.status == Status::IncompleteExpired || self.status == Status::Canceled && reason == "start" || self.open.iter().any(given_up)
    }
}
