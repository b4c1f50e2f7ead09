//! What may be asked of a subscription, and why it is refused.

use std::collections::BTreeSet;

use chassis::Problem;
use chrono::{DateTime, Utc};
use money::Currency;
use serde::{Deserialize, Serialize};

use super::terms::Terms;
use crate::catalog::Code;
use crate::catalog::domain::{Coupon, Discount, Duration};
use crate::error::Error;

/// A wish, or a fact from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Command {
    /// To a plan that costs at least as much, at once; the rest of what was paid counts.
    Upgrade {
        /// The new terms.
        terms: Box<Terms>,
        /// How many seats.
        seats: u32,
    },
    /// To other terms when the period ends.
    Downgrade {
        /// The new terms.
        terms: Box<Terms>,
        /// How many seats.
        seats: u32,
    },
    /// More seats at once, or fewer when the period ends.
    ChangeSeats {
        /// How many.
        seats: u32,
    },
    /// End when the period does.
    CancelAtPeriodEnd,
    /// Do not end after all.
    Uncancel,
    /// End at once; nothing is paid back.
    CancelNow,
    /// Rest: no access, and nothing new to pay.
    Pause,
    /// Go on.
    Resume,
    /// Take something off.
    ApplyCoupon {
        /// What.
        coupon: AppliedCoupon,
    },
    /// A charge was paid.
    PaymentSucceeded {
        /// Of the period that began then.
        period_start: DateTime<Utc>,
        /// For what.
        reason: String,
    },
    /// A charge could not be collected.
    PaymentFailed {
        /// Of the period that began then.
        period_start: DateTime<Utc>,
        /// For what.
        reason: String,
    },
    /// Somebody who may decided at Stripe that a charge is not to be paid: its invoice was voided, and not by us.
    ChargeWaived {
        /// Of the period that began then.
        period_start: DateTime<Utc>,
        /// For what.
        reason: String,
    },
    /// Money that was paid for a charge went back, or was taken by a bank.
    ChargeReversed {
        /// Of the period that began then.
        period_start: DateTime<Utc>,
        /// From when on it was paid for: that of the period, or later for a change within it.
        since: DateTime<Utc>,
        /// How much, in micro-units and without tax; below zero when a bank gave it back.
        micros: i64,
    },
    /// The card of a trial is there.
    BeginTrial,
    /// The first payment, or the card of a trial, did not come in time.
    Expire,
    /// The time to mend a payment is over.
    GraceOver,
    /// The period is over.
    Renew,
}

/// A coupon as it was agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedCoupon {
    /// Which one.
    pub code: Code,
    /// What it takes off.
    pub off: Off,
    /// Until when.
    pub lasts: Lasts,
    /// For which plans; for all when empty, as in what was stored before this was kept. With another plan it takes nothing off and waits.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub plans: BTreeSet<Code>,
}

/// What a coupon takes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Off {
    /// Whole percent.
    Percent(u32),
    /// Micro-units, at most what is to be paid.
    Micros(i64),
}

/// How long a coupon lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lasts {
    /// For the next charge of a period.
    Once,
    /// For periods that begin before this.
    Until(DateTime<Utc>),
    /// For all.
    Forever,
}

impl AppliedCoupon {
    /// The coupon for somebody who pays in this currency, from now.
    ///
    /// # Errors
    /// [`Refusal::NotSold`] when it takes nothing off in the currency or is not for the plan.
    pub fn of(code: Code, coupon: &Coupon, plan: &Code, currency: Currency, now: DateTime<Utc>) -> Result<Self, Refusal> {
        if !coupon.plans.is_empty() && !coupon.plans.contains(plan) {
            return Err(Refusal::NotSold);
        }
        let off = match &coupon.discount {
            Discount::Percent(percent) => Off::Percent(*percent),
            Discount::Amount(amounts) => Off::Micros(*amounts.get(&currency).ok_or(Refusal::NotSold)?),
        };
        let lasts = match coupon.duration {
            Duration::Once => Lasts::Once,
            Duration::Months(months) => Lasts::Until(now.checked_add_months(chrono::Months::new(months)).ok_or(Refusal::TooLarge)?),
            Duration::Forever => Lasts::Forever,
        };
        Ok(Self { code, off, lasts, plans: coupon.plans.iter().cloned().collect() })
    }
}

/// Why something is refused. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is over, and stays over [B-18].
    #[error("the subscription is over")]
    Ended,
    /// Not where it stands.
    #[error("this cannot be done while the subscription is {}", .0.as_str())]
    Status(super::status::Status),
    /// Not yet.
    #[error("it is not due yet")]
    NotDue,
    /// It is to end; that must be undone first.
    #[error("the subscription is to end with its period")]
    CancelPending,
    /// It is not to end.
    #[error("the subscription is not to end")]
    NotCanceling,
    /// It costs less: that is a downgrade, at the end of the period.
    #[error("this costs less than what was paid; it can begin when the period ends")]
    NotAnUpgrade,
    /// Changes were taken back within a month, because nobody paid for them.
    #[error("three changes within thirty days were not paid for; another one can be made later, or with the next period")]
    ChangesUnpaid,
    /// Nothing would change.
    #[error("nothing would change")]
    NoChange,
    /// A plan of another group.
    #[error("the plan is of another group")]
    OtherGroup,
    /// Another currency than the customer's.
    #[error("the customer pays in another currency")]
    OtherCurrency,
    /// Too few or too many seats.
    #[error("the plan does not allow so many seats")]
    Seats,
    /// No price for it.
    #[error("this is not sold in the currency and interval")]
    NotSold,
    /// An amount that does not fit.
    #[error("the amount is too large")]
    TooLarge,
}

impl Refusal {
    /// The stable code of the answer.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Ended => "subscription_ended",
            Self::Status(_) => "subscription_status",
            Self::NotDue => "not_due",
            Self::CancelPending => "cancel_pending",
            Self::NotCanceling => "not_canceling",
            Self::NotAnUpgrade => "not_an_upgrade",
            Self::ChangesUnpaid => "changes_unpaid",
            Self::NoChange => "no_change",
            Self::OtherGroup => "other_plan_group",
            Self::OtherCurrency => "other_currency",
            Self::Seats => "seats_not_allowed",
            Self::NotSold => "not_sold",
            Self::TooLarge => "amount_too_large",
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Problem::conflict(refusal.code(), "The subscription does not allow this").detail(refusal.to_string()).into()
    }
}
