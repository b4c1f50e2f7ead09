//! Terms for the tests of the machine.

use chrono::{DateTime, TimeDelta, Utc};

use super::{decide, start};
use crate::catalog::Interval;
use crate::subscriptions::command::{Command, Refusal};
use crate::subscriptions::state::{Charge, Effect, Grant, Outcome, Subscription};
use crate::subscriptions::status::Status;
use crate::subscriptions::terms::{CreditEnd, CreditTerms, Terms};

pub const UNIT: i64 = 1_000_000;

pub fn terms(plan: &str, currency: &str, interval: Interval, units: i64) -> Terms {
    Terms {
        plan: plan.parse().unwrap(),
        version: 1,
        group: "main".parse().unwrap(),
        currency: currency.parse().unwrap(),
        interval,
        base_micros: units * UNIT,
        seat_micros: units * UNIT / 10 / UNIT * UNIT,
        par_micros: None,
        included_seats: 2,
        max_seats: Some(20),
        credit: Some(CreditTerms { micros: units / 2 * UNIT, ends: CreditEnd::PeriodEnd }),
        trial_days: 14,
        grace_days: 7,
    }
}

pub fn pro() -> Terms {
    terms("pro", "USD", Interval::Month, 20)
}

pub fn team() -> Terms {
    terms("team", "USD", Interval::Month, 100)
}

pub fn day(number: i64) -> DateTime<Utc> {
    "2026-01-31T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::days(number)
}

pub fn charges(effects: &[Effect]) -> Vec<&Charge> {
    effects.iter().filter_map(|effect| if let Effect::Charge(charge) = effect { Some(charge) } else { None }).collect()
}

/// All credit that is given, paid or not.
pub fn grants(effects: &[Effect]) -> Vec<&Grant> {
    effects.iter().filter_map(|effect| if let Effect::Grant(grant) | Effect::Gift(grant) = effect { Some(grant) } else { None }).collect()
}

/// A subscription under test: commands that are taken, and all effects so far.
pub struct Case {
    pub is: Subscription,
    pub effects: Vec<Effect>,
}

impl Case {
    pub fn trial() -> Self {
        let mut case = Self::from(start(pro(), 1, true, None, day(0)).unwrap());
        assert_eq!(case.is.status, Status::Incomplete, "there is no card yet");
        case.does(&Command::BeginTrial, day(0));
        case
    }

    pub fn active(terms: Terms) -> Self {
        let mut case = Self::from(start(terms, 1, false, None, day(0)).unwrap());
        case.paid(day(0));
        case
    }

    pub fn from(outcome: Outcome) -> Self {
        Self { is: outcome.subscription, effects: outcome.effects }
    }

    pub fn attempt(&mut self, command: &Command, at: DateTime<Utc>) -> Result<Vec<Effect>, Refusal> {
        let outcome = decide(&self.is, command, at)?;
        self.is = outcome.subscription;
        self.effects.extend(outcome.effects.clone());
        Ok(outcome.effects)
    }

    pub fn does(&mut self, command: &Command, at: DateTime<Utc>) -> Vec<Effect> {
        self.attempt(command, at).unwrap()
    }

    /// All open charges are paid.
    pub fn paid(&mut self, at: DateTime<Utc>) {
        for charge in self.is.open.clone() {
            self.does(&Command::PaymentSucceeded { period_start: charge.period_start, reason: charge.reason }, at);
        }
    }

    /// The last open charge fails.
    pub fn fails(&mut self, at: DateTime<Utc>) {
        let charge = self.is.open.last().unwrap().clone();
        self.does(&Command::PaymentFailed { period_start: charge.period_start, reason: charge.reason }, at);
    }

    pub fn totals(&self) -> Vec<i64> {
        charges(&self.effects).iter().map(|charge| charge.total_micros).collect()
    }

    pub fn granted(&self) -> Vec<i64> {
        grants(&self.effects).iter().map(|grant| grant.amount_micros).collect()
    }
}

pub fn to(terms: Terms) -> Command {
    Command::Upgrade { terms: Box::new(terms), seats: 1 }
}

pub fn down(terms: Terms) -> Command {
    Command::Downgrade { terms: Box::new(terms), seats: 1 }
}
