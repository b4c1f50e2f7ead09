//! What payments do. Each is told any number of times and counts once: a charge that is not open is not changed by it.

use chrono::{DateTime, Utc};

use super::changes::{apply_pending, begin, end, past_due};
use super::charges::{Carried, whole_period};
use crate::subscriptions::command::Refusal;
use crate::subscriptions::state::{Effect, Subscription};
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
    let settled = !subscription.open.iter().any(|charge| charge.failed);
    match subscription.status {
        Status::Incomplete => subscription.status = Status::Active,
        Status::PastDue if settled => {
            subscription.status = Status::Active;
            subscription.grace_until = None;
        }
        Status::Unpaid if settled => {
            subscription.status = Status::Active;
            if begun.is_some() {
                // What was wanted for the next period begins with the next one.
                begin(subscription, now);
            } else if now >= subscription.period.end && subscription.cancel_at_period_end {
                end(subscription, Status::Canceled, now, effects);
            } else if now >= subscription.period.end {
                // Nobody pays for the time without access: a new period begins now, on the terms that were wanted for it.
                apply_pending(subscription);
                begin(subscription, now);
                whole_period(subscription, "renewal", Carried::default(), effects)?;
            }
        }
        Status::Trialing
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
    let open = subscription.open.iter_mut().find(|charge| charge.period_start == period_start && charge.reason == reason);
    let Some(charge) = open else { return };
    charge.failed = true;
    if matches!(subscription.status, Status::Active | Status::Trialing) {
        past_due(subscription, now);
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

/// The time to mend a payment is over: no access until it is paid.
pub fn grace_over(subscription: &mut Subscription, now: DateTime<Utc>, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
    if subscription.grace_until.is_some_and(|until| now < until) {
        return Err(Refusal::NotDue);
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
