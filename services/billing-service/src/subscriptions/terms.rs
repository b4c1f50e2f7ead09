//! What was agreed: a version of a plan in one currency, paid in one interval. Kept with the subscription, so that a new catalogue
//! changes nothing for who is already there.

use chrono::{DateTime, TimeDelta, Utc};
use money::Currency;
use serde::{Deserialize, Serialize};

use super::command::Refusal;
use super::period::Period;
use crate::catalog::domain::Expiry;
use crate::catalog::stored::PlanVersion;
use crate::catalog::{Code, Interval};
use crate::ledger::CREDIT;
use crate::ledger::postings::Rate;

/// Credit with each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditTerms {
    /// How much for a period, in micro-units.
    pub micros: i64,
    /// When it ends.
    pub ends: CreditEnd,
}

/// When included credit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreditEnd {
    /// With its period.
    PeriodEnd,
    /// So many days after it is given.
    Days(u32),
    /// Not at all.
    Never,
}

impl CreditTerms {
    /// How many days it lasts from when it is given, if that is what was agreed.
    #[must_use]
    pub const fn days(&self) -> Option<u32> {
        match self.ends {
            CreditEnd::Days(days) => Some(days),
            CreditEnd::PeriodEnd | CreditEnd::Never => None,
        }
    }

    /// When credit of this period ends that is given at an instant.
    #[must_use]
    pub fn expires_at(&self, period: Period, given: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.ends {
            CreditEnd::PeriodEnd => Some(period.end),
            CreditEnd::Days(days) => Some(given.max(period.start) + TimeDelta::days(i64::from(days))),
            CreditEnd::Never => None,
        }
    }
}

/// What was agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The plan.
    pub plan: Code,
    /// Its version.
    pub version: i32,
    /// Its group.
    pub group: Code,
    /// What is paid in.
    pub currency: Currency,
    /// How often.
    pub interval: Interval,
    /// Of a period, in micro-units.
    pub base_micros: i64,
    /// Of each seat beyond those included, in micro-units.
    pub seat_micros: i64,
    /// Seats in the price.
    pub included_seats: u32,
    /// Seats at most.
    pub max_seats: Option<u32>,
    /// Base and seat in the currency of credit, in micro-units, where the plan is sold in it and this is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub par_micros: Option<(i64, i64)>,
    /// Credit with each period, in the currency of credit.
    pub credit: Option<CreditTerms>,
    /// Days before the first payment.
    pub trial_days: u32,
    /// Days that a failed payment may be mended in.
    pub grace_days: u32,
}

impl Terms {
    /// The terms of a version of a plan.
    ///
    /// # Errors
    /// [`Refusal::NotSold`] when it has no price in the currency and interval; [`Refusal::TooLarge`].
    pub fn of(sold: &PlanVersion, currency: Currency, interval: Interval) -> Result<Self, Refusal> {
        let plan = &sold.plan;
        let base_micros = plan.prices.get(currency, interval).ok_or(Refusal::NotSold)?;
        let months = if interval == Interval::Year { 12 } else { 1 };
        let credit = plan.included_credit.as_ref().and_then(|credit| Some((credit.amounts.get(&CREDIT)?, credit.expires)));
        let credit = credit.map(|(micros, expires)| {
            let ends = match expires {
                Expiry::PeriodEnd => CreditEnd::PeriodEnd,
                Expiry::Days(days) => CreditEnd::Days(days),
                Expiry::Never => CreditEnd::Never,
            };
            Ok(CreditTerms { micros: micros.checked_mul(months).ok_or(Refusal::TooLarge)?, ends })
        });
        let par = plan.prices.get(CREDIT, interval).map(|base| (base, plan.seats.prices.get(CREDIT, interval).unwrap_or(0)));
        Ok(Self {
            plan: sold.code.clone(),
            version: sold.version,
            group: plan.group.clone(),
            currency,
            interval,
            base_micros,
            seat_micros: plan.seats.prices.get(currency, interval).unwrap_or(0),
            included_seats: plan.seats.included,
            max_seats: plan.seats.max,
            par_micros: par.filter(|_| currency != CREDIT),
            credit: credit.transpose()?,
            trial_days: plan.trial_days,
            grace_days: plan.grace_days,
        })
    }

    /// Whether so many seats may be had.
    ///
    /// # Errors
    /// [`Refusal::Seats`].
    pub fn allow_seats(&self, seats: u32) -> Result<(), Refusal> {
        if seats >= 1 && self.max_seats.is_none_or(|max| seats <= max) { Ok(()) } else { Err(Refusal::Seats) }
    }

    /// Of a period for the seats beyond those included, in micro-units.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`].
    pub fn seats_micros(&self, seats: u32) -> Result<i64, Refusal> {
        let extra = i64::from(seats.saturating_sub(self.included_seats));
        self.seat_micros.checked_mul(extra).ok_or(Refusal::TooLarge)
    }

    /// Of a period with so many seats, before any discount, in micro-units.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`].
    pub fn total_micros(&self, seats: u32) -> Result<i64, Refusal> {
        self.base_micros.checked_add(self.seats_micros(seats)?).ok_or(Refusal::TooLarge)
    }

    /// At which price money in the plan's currency is credit: as the plan costs in both; where it is sold in one only, its price buys the
    /// credit that comes with it, and nothing else. None of a plan that costs nothing.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        let (base, seat) = self.par_micros.unwrap_or((self.credit_micros(), self.credit_micros()));
        let rates = [Rate { money: self.base_micros, credit: base }, Rate { money: self.seat_micros, credit: seat }];
        rates.into_iter().find(|rate| rate.money > 0 && rate.credit > 0)
    }

    /// Credit of a period, zero for none, in micro-units.
    #[must_use]
    pub fn credit_micros(&self) -> i64 {
        self.credit.map_or(0, |credit| credit.micros)
    }
}
