//! What the customer and the calendar do.

use chrono::{DateTime, TimeDelta, Utc};

use super::charges::{Carried, rest_of_period, whole_period};
use super::unpaid::{forget_pending, grace, revocably, stands};
use crate::catalog::Interval;
use crate::ledger::CREDIT;
use crate::subscriptions::command::{AppliedCoupon, Refusal};
use crate::subscriptions::period::Period;
use crate::subscriptions::proration::unused;
use crate::subscriptions::state::{Effect, Pending, Subscription};
use crate::subscriptions::status::Status;
use crate::subscriptions::terms::Terms;

/// The card is there: the trial begins now, and not when its page was made.
pub fn begin_trial(subscription: &mut Subscription, now: DateTime<Utc>) -> Result<(), Refusal> {
    if !subscription.waits_for_card() {
        return Err(Refusal::Status(subscription.status));
    }
    subscription.status = Status::Trialing;
    subscription.anchor = now;
    subscription.period = Period { start: now, end: now + TimeDelta::days(i64::from(subscription.terms.trial_days)) };
    Ok(())
}

/// What new terms must keep whichever way they come.
fn fits(subscription: &Subscription, terms: &Terms, seats: u32) -> Result<(), Refusal> {
    if terms.group != subscription.terms.group {
        return Err(Refusal::OtherGroup);
    }
    if terms.currency != subscription.terms.currency {
        return Err(Refusal::OtherCurrency);
    }
    terms.allow_seats(seats)?;
    terms.total_micros(seats).map(|_| ())
}

/// Whether other terms are for more: a longer time, or as much for the same time at least.
pub fn is_more(subscription: &Subscription, terms: &Terms, seats: u32) -> Result<bool, Refusal> {
    let longer = (subscription.terms.interval, terms.interval) == (Interval::Month, Interval::Year);
    let same = subscription.terms.interval == terms.interval;
    Ok(longer || same && terms.total_micros(seats)? >= subscription.terms.total_micros(subscription.seats)?)
}

/// New terms at once. In a trial nothing is paid and the trial goes on. With another interval a new period begins now.
pub fn upgrade(
    subscription: &mut Subscription,
    terms: &Terms,
    seats: u32,
    now: DateTime<Utc>,
    effects: &mut Vec<Effect>,
) -> Result<(), Refusal> {
    fits(subscription, terms, seats)?;
    if (terms, seats) == (&subscription.terms, subscription.seats) {
        return Err(Refusal::NoChange);
    }
    if !is_more(subscription, terms, seats)? {
        return Err(Refusal::NotAnUpgrade);
    }
    if now >= subscription.period.end {
        // The calendar comes first: the period that is over must be closed before anything is charged for it.
        return Err(Refusal::NotDue);
    }
    if subscription.status == Status::Trialing {
        subscription.pending = None;
        subscription.terms = terms.clone();
        subscription.seats = seats;
        return Ok(());
    }
    revocably(subscription, now, |subscription| {
        subscription.pending = None;
        if subscription.terms.interval == terms.interval {
            return rest_of_period(subscription, terms, seats, "upgrade", now, effects);
        }
        of_another_interval(subscription, terms, seats, now, effects)
    })
}

/// A new period begins now, and what is left of the one before counts.
fn of_another_interval(
    subscription: &mut Subscription,
    terms: &Terms,
    seats: u32,
    now: DateTime<Utc>,
    effects: &mut Vec<Effect>,
) -> Result<(), Refusal> {
    let left = |micros, currency| unused(micros, subscription.period, now, currency);
    let carried = Carried { micros: left(subscription.value_micros, terms.currency), credit_micros: left(subscription.credited(), CREDIT) };
    subscription.terms = terms.clone();
    subscription.seats = seats;
    begin(subscription, now);
    let reason = format!("upgrade-{}", subscription.revision);
    whole_period(subscription, &reason, carried, effects)
}

/// Other terms when the period ends.
pub fn downgrade(subscription: &mut Subscription, terms: &Terms, seats: u32) -> Result<(), Refusal> {
    fits(subscription, terms, seats)?;
    if subscription.cancel_at_period_end {
        return Err(Refusal::CancelPending);
    }
    forget_pending(&mut subscription.open);
    if (terms, seats) == (&subscription.terms, subscription.seats) {
        // Back to what it is: the change that was to come does not.
        return subscription.pending.take().map(|_| ()).ok_or(Refusal::NoChange);
    }
    subscription.pending = Some(Pending { terms: terms.clone(), seats });
    Ok(())
}

/// More seats at once, fewer when the period ends. Who owes for what there is gets no more of it.
pub fn seats(subscription: &mut Subscription, seats: u32, now: DateTime<Utc>, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
    let terms = subscription.terms.clone();
    terms.allow_seats(seats)?;
    if seats < subscription.seats {
        let to = subscription.pending.as_ref().map_or(terms, |pending| pending.terms.clone());
        return downgrade(subscription, &to, seats);
    }
    if seats == subscription.seats {
        return Err(Refusal::NoChange);
    }
    if subscription.status == Status::PastDue {
        return Err(Refusal::Status(Status::PastDue));
    }
    if now >= subscription.period.end {
        return Err(Refusal::NotDue);
    }
    let keep_pending = |subscription: &mut Subscription| {
        let Some(pending) = &mut subscription.pending else { return Ok(()) };
        pending.terms.allow_seats(seats)?;
        pending.seats = seats;
        Ok(())
    };
    if subscription.status == Status::Trialing {
        keep_pending(subscription)?;
        subscription.seats = seats;
        return Ok(());
    }
    revocably(subscription, now, |subscription| {
        keep_pending(subscription)?;
        rest_of_period(subscription, &terms, seats, "seats", now, effects)
    })
}

/// Ends with its period.
pub fn cancel_at_period_end(subscription: &mut Subscription) -> Result<(), Refusal> {
    if subscription.cancel_at_period_end {
        return Err(Refusal::NoChange);
    }
    subscription.cancel_at_period_end = true;
    forget_pending(&mut subscription.open);
    // There is no period after this one for another plan to begin in.
    subscription.pending = None;
    Ok(())
}

/// Goes on after all.
pub fn uncancel(subscription: &mut Subscription) -> Result<(), Refusal> {
    if !subscription.cancel_at_period_end {
        return Err(Refusal::NotCanceling);
    }
    subscription.cancel_at_period_end = false;
    Ok(())
}

/// Over, for good. What is open stays known, so that money that comes late is dealt with: what failed, and whatever is open when access was
/// lost or on grace, is given up, so that nobody pays for a plan that he has no more. What else is on its way was had, and is paid. The
/// first charge is that of a page, which goes by itself.
pub fn end(subscription: &mut Subscription, status: Status, now: DateTime<Utc>, effects: &mut Vec<Effect>) {
    let owed = matches!(subscription.status, Status::PastDue | Status::Unpaid);
    for charge in subscription.open.iter_mut().filter(|charge| charge.reason != "start" && !charge.given_up && (owed || charge.failed)) {
        charge.given_up = true;
        charge.before = None;
        effects.push(Effect::GiveUp { period_start: charge.period_start, reason: charge.reason.clone() });
    }
    subscription.status = status;
    subscription.ended_at = Some(now);
    subscription.pending = None;
    subscription.grace_until = None;
}

/// Rests.
pub fn pause(subscription: &mut Subscription) -> Result<(), Refusal> {
    if subscription.cancel_at_period_end {
        return Err(Refusal::CancelPending);
    }
    subscription.status = Status::Paused;
    Ok(())
}

/// Goes on: in the paid period, or in a new one from now.
pub fn resume(subscription: &mut Subscription, now: DateTime<Utc>, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
    subscription.status = Status::Active;
    if now >= subscription.period.end {
        apply_pending(subscription);
        begin(subscription, now);
        whole_period(subscription, "renewal", Carried::default(), effects)?;
    }
    let owed = subscription.open.iter().filter(|charge| charge.is_owed());
    if let Some(grace) = owed.map(|charge| grace(subscription, charge, now)).max() {
        past_due(subscription, now + grace);
    }
    Ok(())
}

/// Takes something off the next charges of whole periods.
pub fn apply_coupon(subscription: &mut Subscription, coupon: &AppliedCoupon) -> Result<(), Refusal> {
    if subscription.coupon.as_ref() == Some(coupon) {
        return Err(Refusal::NoChange);
    }
    subscription.coupon = Some(coupon.clone());
    Ok(())
}

/// The period is over: the end that was wanted, or the next period on the terms that were wanted.
pub fn renew(subscription: &mut Subscription, now: DateTime<Utc>, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
    if now < subscription.period.end {
        return Err(Refusal::NotDue);
    }
    if subscription.cancel_at_period_end {
        let at = subscription.period.end;
        end(subscription, Status::Canceled, at, effects);
        return Ok(());
    }
    if subscription.status == Status::PastDue {
        // No period is begun on top of one that was not paid.
        return Err(Refusal::Status(Status::PastDue));
    }
    let (end_of_period, interval) = (subscription.period.end, subscription.terms.interval);
    apply_pending(subscription);
    if subscription.status == Status::Trialing || subscription.terms.interval != interval {
        subscription.status = Status::Active;
        begin(subscription, end_of_period);
    } else {
        subscription.number = subscription.number.checked_add(1).ok_or(Refusal::TooLarge)?;
        subscription.period = Period::nth(subscription.anchor, interval, subscription.number);
    }
    whole_period(subscription, "renewal", Carried::default(), effects)
}

/// What was wanted for when the period ends, now that the next one begins: to be called before [`begin`]. What was changed in the one that
/// is over is not taken back any more.
pub fn apply_pending(subscription: &mut Subscription) {
    stands(&mut subscription.open);
    if let Some(pending) = subscription.pending.take() {
        subscription.terms = pending.terms;
        subscription.seats = pending.seats;
    }
}

/// Counts periods from here.
pub fn begin(subscription: &mut Subscription, anchor: DateTime<Utc>) {
    subscription.anchor = anchor;
    subscription.number = 0;
    subscription.paid_by = None;
    subscription.period = Period::nth(anchor, subscription.terms.interval, 0);
}

/// A payment failed: it may be mended until then.
pub const fn past_due(subscription: &mut Subscription, until: DateTime<Utc>) {
    subscription.status = Status::PastDue;
    subscription.grace_until = Some(until);
}
