//! The state machine: from a subscription and a command to the next subscription and what is to be done, or to a refusal. Pure:
//! the instant is handed in, and nothing is read or written.
//!
//! Rules that are ours to choose: a trial of what costs something begins when there is a card to charge after it; what is bought during a
//! period is in force at once, and an unpaid charge makes it past due; a change within a period that is not paid for in the grace is taken
//! back, and the period that was paid before it goes on; an upgrade in a trial keeps the trial; an upgrade while an end is pending keeps
//! the end; a downgrade then is refused; a pause stops neither the clock of the paid period nor gives anything back; coupons take off
//! charges of whole periods; changes within a period bring the credit of the plan that has most, once; what could not be collected is
//! given up when the subscription ends over it.

mod changes;
mod charges;
#[cfg(test)]
mod fixtures;
mod payments;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenarios;
mod unpaid;

use chrono::{DateTime, TimeDelta, Utc};

use super::command::{AppliedCoupon, Command, Refusal};
use super::period::Period;
use super::state::{Effect, Outcome, Subscription};
use super::status::Status;
use super::terms::Terms;

/// Begins a subscription: with its trial if there is one and `trial` says so, otherwise with its first charge, unless that is nothing.
///
/// # Errors
/// [`Refusal`].
pub fn start(terms: Terms, seats: u32, trial: bool, coupon: Option<AppliedCoupon>, now: DateTime<Utc>) -> Result<Outcome, Refusal> {
    terms.allow_seats(seats)?;
    let in_trial = trial && terms.trial_days > 0;
    let waits_for_card = in_trial && terms.total_micros(seats)? > 0;
    let period = if in_trial {
        Period { start: now, end: now + TimeDelta::days(i64::from(terms.trial_days)) }
    } else {
        Period::nth(now, terms.interval, 0)
    };
    let mut subscription = Subscription {
        status: if in_trial && !waits_for_card { Status::Trialing } else { Status::Incomplete },
        terms,
        seats,
        anchor: now,
        number: 0,
        period,
        paid_by: None,
        value_micros: 0,
        credited_micros: 0,
        cancel_at_period_end: false,
        pending: None,
        coupon,
        open: Vec::new(),
        grace_until: None,
        taken_back: Vec::new(),
        started_at: now,
        ended_at: None,
        revision: 1,
    };
    let mut effects = vec![Effect::EntitlementsChanged];
    if !in_trial {
        charges::whole_period(&mut subscription, "start", charges::Carried::default(), &mut effects)?;
        if subscription.open.is_empty() {
            subscription.status = Status::Active;
        }
    }
    Ok(Outcome { subscription, effects })
}

/// Decides a command. A fact that changes nothing (a payment that is known) leaves the subscription as it is, without effects.
///
/// # Errors
/// [`Refusal`]; nothing has changed.
pub fn decide(before: &Subscription, command: &Command, now: DateTime<Utc>) -> Result<Outcome, Refusal> {
    allow(before.status, command)?;
    let mut after = Subscription { revision: before.revision + 1, ..before.clone() };
    let mut effects = Vec::new();
    match command {
        Command::Upgrade { terms, seats } => changes::upgrade(&mut after, terms, *seats, now, &mut effects)?,
        Command::Downgrade { terms, seats } => changes::downgrade(&mut after, terms, *seats)?,
        Command::ChangeSeats { seats } => changes::seats(&mut after, *seats, now, &mut effects)?,
        Command::CancelAtPeriodEnd => changes::cancel_at_period_end(&mut after)?,
        Command::Uncancel => changes::uncancel(&mut after)?,
        Command::CancelNow => changes::end(&mut after, Status::Canceled, now, &mut effects),
        Command::Pause => changes::pause(&mut after)?,
        Command::Resume => changes::resume(&mut after, now, &mut effects)?,
        Command::ApplyCoupon { coupon } => changes::apply_coupon(&mut after, coupon)?,
        Command::PaymentSucceeded { period_start, reason } => payments::succeeded(&mut after, *period_start, reason, now, &mut effects)?,
        Command::PaymentFailed { period_start, reason } => payments::failed(&mut after, *period_start, reason, now),
        Command::ChargeWaived { period_start, reason } => payments::waived(&mut after, *period_start, reason, now, &mut effects)?,
        Command::ChargeReversed { period_start, since, micros } => payments::reversed(&mut after, *period_start, *since, *micros),
        Command::BeginTrial => changes::begin_trial(&mut after, now)?,
        Command::Expire => payments::expire(&mut after, now, &mut effects)?,
        Command::GraceOver => payments::grace_over(&mut after, now, &mut effects)?,
        Command::Renew => changes::renew(&mut after, now, &mut effects)?,
    }
    if rights(before) != rights(&after) {
        effects.push(Effect::EntitlementsChanged);
    }
    let unchanged = Subscription { revision: before.revision, ..after.clone() } == *before;
    if unchanged && effects.is_empty() {
        after.revision = before.revision;
    }
    Ok(Outcome { subscription: after, effects })
}

/// What another plan is: an upgrade, at once, or for less than now a downgrade, which waits for the end of the period. Whoever is behind
/// with paying may want less, and not more.
#[must_use]
pub fn change_of_plan(before: &Subscription, terms: Box<Terms>, seats: u32, now: DateTime<Utc>) -> Command {
    let upgrade = Command::Upgrade { terms, seats };
    let is_less = |terms| matches!(changes::is_more(before, terms, seats), Ok(false));
    match (decide(before, &upgrade, now), upgrade) {
        (Err(Refusal::NotAnUpgrade), Command::Upgrade { terms, seats }) => Command::Downgrade { terms, seats },
        (Err(Refusal::Status(_)), Command::Upgrade { terms, seats }) if is_less(&terms) => Command::Downgrade { terms, seats },
        (_, upgrade) => upgrade,
    }
}

/// What entitlements are made of.
fn rights(subscription: &Subscription) -> (Status, &Terms, u32) {
    (subscription.status, &subscription.terms, subscription.seats)
}

/// Which commands a status takes: one row for each status, each command named, so that a new one of either does not compile until
/// somebody decides.
fn allow(status: Status, command: &Command) -> Result<(), Refusal> {
    use Command as C;
    let refused = Err(Refusal::Status(status));
    match status {
        Status::Incomplete => allow_before(command),
        Status::Trialing => match command {
            C::Upgrade { .. }
            | C::Downgrade { .. }
            | C::ChangeSeats { .. }
            | C::CancelAtPeriodEnd
            | C::Uncancel
            | C::CancelNow
            | C::ApplyCoupon { .. }
            | C::PaymentSucceeded { .. }
            | C::PaymentFailed { .. }
            | C::ChargeWaived { .. }
            | C::ChargeReversed { .. }
            | C::Renew => Ok(()),
            C::Pause | C::Resume | C::BeginTrial | C::Expire | C::GraceOver => refused,
        },
        Status::Active => match command {
            C::Upgrade { .. }
            | C::Downgrade { .. }
            | C::ChangeSeats { .. }
            | C::CancelAtPeriodEnd
            | C::Uncancel
            | C::CancelNow
            | C::Pause
            | C::ApplyCoupon { .. }
            | C::PaymentSucceeded { .. }
            | C::PaymentFailed { .. }
            | C::ChargeWaived { .. }
            | C::ChargeReversed { .. }
            | C::Renew => Ok(()),
            C::Resume | C::BeginTrial | C::Expire | C::GraceOver => refused,
        },
        Status::PastDue => match command {
            // Fewer seats; more are refused where they are counted.
            C::ChangeSeats { .. }
            | C::Downgrade { .. }
            | C::CancelAtPeriodEnd
            | C::Uncancel
            | C::CancelNow
            | C::ApplyCoupon { .. }
            | C::PaymentSucceeded { .. }
            | C::PaymentFailed { .. }
            | C::ChargeWaived { .. }
            | C::ChargeReversed { .. }
            | C::GraceOver
            | C::Renew => Ok(()),
            C::Upgrade { .. } | C::Pause | C::Resume | C::BeginTrial | C::Expire => refused,
        },
        Status::Unpaid => match command {
            C::CancelNow | C::PaymentSucceeded { .. } | C::PaymentFailed { .. } | C::ChargeWaived { .. } | C::ChargeReversed { .. } => {
                Ok(())
            }
            C::Upgrade { .. }
            | C::Downgrade { .. }
            | C::ChangeSeats { .. }
            | C::CancelAtPeriodEnd
            | C::Uncancel
            | C::Pause
            | C::Resume
            | C::ApplyCoupon { .. }
            | C::BeginTrial
            | C::Expire
            | C::GraceOver
            | C::Renew => refused,
        },
        Status::Paused => match command {
            C::CancelNow
            | C::Resume
            | C::PaymentSucceeded { .. }
            | C::PaymentFailed { .. }
            | C::ChargeWaived { .. }
            | C::ChargeReversed { .. } => Ok(()),
            C::Upgrade { .. }
            | C::Downgrade { .. }
            | C::ChangeSeats { .. }
            | C::CancelAtPeriodEnd
            | C::Uncancel
            | C::Pause
            | C::ApplyCoupon { .. }
            | C::BeginTrial
            | C::Expire
            | C::GraceOver
            | C::Renew => refused,
        },
        Status::IncompleteExpired | Status::Canceled => allow_when_over(command),
    }
}

/// What has not begun is begun, or given up.
fn allow_before(command: &Command) -> Result<(), Refusal> {
    use Command as C;
    match command {
        C::CancelNow
        | C::PaymentSucceeded { .. }
        | C::PaymentFailed { .. }
        | C::ChargeWaived { .. }
        | C::ChargeReversed { .. }
        | C::BeginTrial
        | C::Expire => Ok(()),
        C::Upgrade { .. }
        | C::Downgrade { .. }
        | C::ChangeSeats { .. }
        | C::CancelAtPeriodEnd
        | C::Uncancel
        | C::Pause
        | C::Resume
        | C::ApplyCoupon { .. }
        | C::GraceOver
        | C::Renew => Err(Refusal::Status(Status::Incomplete)),
    }
}

/// What is over takes money that comes late, and nothing else.
fn allow_when_over(command: &Command) -> Result<(), Refusal> {
    use Command as C;
    match command {
        C::PaymentSucceeded { .. } | C::PaymentFailed { .. } | C::ChargeWaived { .. } | C::ChargeReversed { .. } => Ok(()),
        C::Upgrade { .. }
        | C::Downgrade { .. }
        | C::ChangeSeats { .. }
        | C::CancelAtPeriodEnd
        | C::Uncancel
        | C::CancelNow
        | C::Pause
        | C::Resume
        | C::ApplyCoupon { .. }
        | C::BeginTrial
        | C::Expire
        | C::GraceOver
        | C::Renew => Err(Refusal::Ended),
    }
}
