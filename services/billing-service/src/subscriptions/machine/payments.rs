//! What payments do. Each is told any number of times and counts once: a charge that is not open is not changed by it.

use chrono::{DateTime, Utc};

use super::changes::{apply_pending, begin, end, past_due};
use super::charges::{Carried, whole_period};
use super::unpaid::{grace, is_long_over, stands, take_back};
use crate::subscriptions::command::Refusal;
use crate::subscriptions::period::Period;
use crate::subscriptions::state::{Effect, OpenCharge, Subscription};
use crate::subscriptions::status::Status;

/// A charge was paid: its credit is given, and what waited for it goes on.
pub fn succeeded(
    subscription: &mut Subscription,
    period_start: DateTime<Utc>,
    reason: &str,
    now: DateTime<Utc>,
    effects: &mut Vec<Effect>,
) -> Result<(), Refusal> {
    let Some(index) = subscription.open.iter().position(|charge| charge.period_start == period_start && charge.reason == reason) else {
        return Ok(());
    };
    let refused = subscription.refuses_payment(period_start, reason);
    let (promised, begun) = (subscription.promised(period_start, reason, now), subscription.begun_by(period_start, reason, now));
    subscription.open.remove(index);
    if refused {
        effects.push(Effect::Refund { period_start, reason: reason.to_owned() });
        return Ok(());
    }
    effects.extend(promised.map(Effect::Grant));
    stands(&mut subscription.open[..index]);
    if subscription.status == Status::Incomplete {
        subscription.status = Status::Active;
    }
    unless_owing(subscription, begun, now, effects)
}

/// Somebody at Stripe decided that a charge is not to be paid: nothing is owed for it, and no credit comes with it.
pub fn waived(
    subscription: &mut Subscription,
    period_start: DateTime<Utc>,
    reason: &str,
    now: DateTime<Utc>,
    effects: &mut Vec<Effect>,
) -> Result<(), Refusal> {
    // The first one is that of a page; and what we gave up ourselves is kept, so that money which comes for it all the same goes back.
    let is_waived = |charge: &OpenCharge| {
        charge.period_start == period_start && charge.reason == reason && charge.reason != "start" && !charge.given_up
    };
    let Some(index) = subscription.open.iter().position(is_waived) else { return Ok(()) };
    subscription.open.remove(index);
    if reason == "renewal" && period_start == subscription.period.start {
        // What is left of it is worth nothing to a later change, as with a coupon for all of it.
        subscription.value_micros = 0;
    }
    let is_over = subscription.status == Status::Unpaid && now >= subscription.period.end;
    if is_over && !subscription.open.iter().any(OpenCharge::is_owed) {
        // Who is let off an old debt has not asked for a new period.
        end(subscription, Status::Canceled, now, effects);
        return Ok(());
    }
    unless_owing(subscription, None, now, effects)
}

/// Money that was paid for the period went back: so much less of it is left for a later change to count, also for one that counts from what
/// was agreed before a change that is not paid yet. The period itself goes on, until somebody ends it.
pub fn reversed(subscription: &mut Subscription, period_start: DateTime<Utc>, since: DateTime<Utc>, micros: i64) {
    let is_this = |period: Period| period.start == period_start;
    if is_this(subscription.period) || subscription.paid_by == Some(period_start) {
        let of_all = of_whole(subscription.period, since, micros);
        subscription.value_micros = subscription.value_micros.saturating_sub(of_all).max(0);
    }
    for before in subscription.open.iter_mut().filter_map(|charge| charge.before.as_mut()).filter(|before| is_this(before.period)) {
        before.value_micros = before.value_micros.saturating_sub(of_whole(before.period, since, micros)).max(0);
    }
}

/// What is paid for the rest of a period, as a price of the whole: as that is what a value is.
fn of_whole(period: Period, since: DateTime<Utc>, micros: i64) -> i64 {
    let (used, rest) = period.split_at(since.max(period.start));
    if rest == 0 {
        return 0;
    }
    let whole = i128::from(micros) * i128::from(used + rest) / i128::from(rest);
    i64::try_from(whole).unwrap_or(i64::MAX)
}

/// What waited for the last charge that was owed goes on, in the period that was begun by its payment if one was.
fn unless_owing(
    subscription: &mut Subscription,
    begun: Option<Period>,
    now: DateTime<Utc>,
    effects: &mut Vec<Effect>,
) -> Result<(), Refusal> {
    let settled = !subscription.open.iter().any(OpenCharge::is_owed);
    match subscription.status {
        Status::PastDue if settled => {
            subscription.status = Status::Active;
            subscription.grace_until = None;
        }
        Status::Unpaid if settled => {
            subscription.status = Status::Active;
            if begun.is_some() {
                // What was wanted for the next period begins with the next one.
                stands(&mut subscription.open);
                let paid_by = subscription.period.start;
                begin(subscription, now);
                subscription.paid_by = Some(paid_by);
            } else if now >= subscription.period.end && subscription.cancel_at_period_end {
                end(subscription, Status::Canceled, now, effects);
            } else if now >= subscription.period.end {
                // Nobody pays for the time without access: a new period begins now, on the terms that were wanted for it.
                apply_pending(subscription);
                begin(subscription, now);
                whole_period(subscription, "renewal", Carried::default(), effects)?;
            }
        }
        Status::Incomplete
        | Status::Trialing
        | Status::Active
        | Status::PastDue
        | Status::Unpaid
        | Status::Paused
        | Status::Canceled
        | Status::IncompleteExpired => {}
    }
    Ok(())
}

/// A charge could not be collected.
pub fn failed(subscription: &mut Subscription, period_start: DateTime<Utc>, reason: &str, now: DateTime<Utc>) {
    let is_it = |charge: &OpenCharge| charge.period_start == period_start && charge.reason == reason;
    let Some(index) = subscription.open.iter().position(is_it) else { return };
    let is_known = std::mem::replace(&mut subscription.open[index].failed, true);
    let charge = &subscription.open[index];
    if !charge.is_owed() {
        return;
    }
    let until = now + grace(subscription, charge, now);
    match subscription.status {
        Status::Active | Status::Trialing => past_due(subscription, until),
        // What is owed for a period has the time that it has, also beside a change that has less.
        Status::PastDue if !is_known && charge.before.is_none() => subscription.grace_until = subscription.grace_until.max(Some(until)),
        _ => {}
    }
}

/// The first payment did not come in 23 hours.
pub fn expire(subscription: &mut Subscription, now: DateTime<Utc>, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
    if subscription.next_action_at().is_some_and(|at| now < at) {
        return Err(Refusal::NotDue);
    }
    end(subscription, Status::IncompleteExpired, now, effects);
    Ok(())
}

/// The time to mend a payment is over: changes that nobody pays for are taken back, and without what is owed then there is no access.
pub fn grace_over(subscription: &mut Subscription, now: DateTime<Utc>, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
    if subscription.grace_until.is_some_and(|until| now < until) {
        return Err(Refusal::NotDue);
    }
    take_back(subscription, now, effects);
    if !subscription.open.iter().any(OpenCharge::is_owed) {
        subscription.status = Status::Active;
        subscription.grace_until = None;
        if is_long_over(subscription, now) && !subscription.cancel_at_period_end {
            apply_pending(subscription);
            begin(subscription, now);
            whole_period(subscription, "renewal", Carried::default(), effects)?;
        }
        return Ok(());
    }
    if subscription.cancel_at_period_end {
        // It was not to go on anyway, and nobody would look at it again.
        end(subscription, Status::Canceled, now, effects);
        return Ok(());
    }
    subscription.status = Status::Unpaid;
    subscription.grace_until = None;
    Ok(())
}
