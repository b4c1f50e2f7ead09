//! Changes within a period that are not paid for. They are in force at once; when nobody has paid in the time for that, they are taken back,
//! and not the period that was paid before them.

use chrono::{DateTime, TimeDelta, Utc};

use super::changes::is_more;
use crate::subscriptions::command::Refusal;
use crate::subscriptions::period::Period;
use crate::subscriptions::state::{Agreed, Effect, OpenCharge, Pending, Subscription};

/// How long a change may wait for its payment by somebody who did not pay for one before: enough to confirm it to a bank.
const SHORT_GRACE: TimeDelta = TimeDelta::hours(1);
/// For so long that is remembered.
const REMEMBERED: TimeDelta = TimeDelta::days(365);
/// How often within thirty days before no other change is made: who goes on would have for nothing what others pay for.
const MOST_TAKEN_BACK: usize = 3;
const RECENT: TimeDelta = TimeDelta::days(30);

/// Has a change within the period, and keeps with its charge what was agreed before. Where nothing is to be paid for it, there is nothing to
/// wait for.
///
/// # Errors
/// What the change is refused for; [`Refusal::ChangesUnpaid`].
pub fn revocably(
    subscription: &mut Subscription,
    now: DateTime<Utc>,
    change: impl FnOnce(&mut Subscription) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (before, charges) = (Agreed::in_force(subscription), subscription.open.len());
    change(subscription)?;
    let recently = subscription.taken_back.iter().filter(|at| **at > now - RECENT).count();
    if let Some(unpaid) = subscription.open.get_mut(charges) {
        if recently >= MOST_TAKEN_BACK {
            return Err(Refusal::ChangesUnpaid);
        }
        unpaid.before = Some(Box::new(before));
    }
    Ok(())
}

/// Something stands that was built on what these charges are for: none of that can be taken back any more.
pub fn stands(charges: &mut [OpenCharge]) {
    for charge in charges {
        charge.before = None;
    }
}

/// The customer has said anew what the next period is to be: what was to be before a change is not wanted any more.
pub fn forget_pending(charges: &mut [OpenCharge]) {
    for before in charges.iter_mut().filter_map(|charge| charge.before.as_mut()) {
        before.pending = None;
    }
}

/// How long a charge that was refused may be mended: the plan's grace, and less for a change when another was taken back before it.
#[must_use]
pub fn grace(subscription: &Subscription, refused: &OpenCharge, now: DateTime<Utc>) -> TimeDelta {
    let of_plan = TimeDelta::days(i64::from(subscription.terms.grace_days));
    let did_not_pay = refused.before.is_some() && subscription.taken_back.iter().any(|at| *at > now - REMEMBERED);
    if did_not_pay { of_plan.min(SHORT_GRACE) } else { of_plan }
}

/// Takes back the first change that is owed for, and all that were built on it: what was agreed before holds again. What was wanted for
/// the next period since then is still wanted, unless it would be more than that.
pub fn take_back(subscription: &mut Subscription, now: DateTime<Utc>, effects: &mut Vec<Effect>) {
    let is_owed = |charge: &OpenCharge| charge.is_owed() && charge.before.is_some();
    let Some(first) = subscription.open.iter().position(is_owed) else { return };
    let mut agreed = None;
    for charge in &mut subscription.open[first..] {
        let Some(before) = charge.before.take() else { continue };
        agreed = agreed.or(Some(before));
        charge.given_up = true;
        effects.push(Effect::GiveUp { period_start: charge.period_start, reason: charge.reason.clone() });
    }
    if let Some(agreed) = agreed {
        agreed.restore(subscription);
        subscription.taken_back.retain(|at| *at > now - REMEMBERED);
        subscription.taken_back.push(now);
    }
}

/// Whether the period that follows the present one is over as well: then nobody pays for it.
#[must_use]
pub fn is_long_over(subscription: &Subscription, now: DateTime<Utc>) -> bool {
    let following = subscription.number.saturating_add(1);
    now >= Period::nth(subscription.anchor, subscription.terms.interval, following).end
}

impl Agreed {
    fn in_force(subscription: &Subscription) -> Self {
        Self {
            terms: subscription.terms.clone(),
            seats: subscription.seats,
            anchor: subscription.anchor,
            number: subscription.number,
            period: subscription.period,
            value_micros: subscription.value_micros,
            credited_micros: subscription.credited_micros,
            pending: subscription.pending.clone(),
            coupon: subscription.coupon.clone(),
        }
    }

    fn restore(self, subscription: &mut Subscription) {
        let Self { terms, seats, anchor, number, period, value_micros, credited_micros, pending, coupon } = self;
        let wanted = subscription.pending.take();
        subscription.terms = terms;
        subscription.seats = seats;
        subscription.anchor = anchor;
        subscription.number = number;
        subscription.period = period;
        subscription.value_micros = value_micros;
        subscription.credited_micros = credited_micros;
        // A coupon that was used by what is taken back is there again.
        subscription.coupon = subscription.coupon.take().or(coupon);
        // Less than the change is not less than what holds again; and seats that come with a change are no wish of their own.
        let wanted = wanted.map(|wanted| Pending { seats: wanted.seats.min(seats), ..wanted });
        let is_dearer = |wanted: &Pending| {
            let (now, then) = (subscription.terms.total_micros(seats), wanted.terms.total_micros(wanted.seats));
            matches!(is_more(subscription, &wanted.terms, wanted.seats), Ok(true))
                && (now != then || wanted.terms.interval != subscription.terms.interval)
        };
        let is_other = |wanted: &Pending| (&wanted.terms, wanted.seats) != (&subscription.terms, seats);
        let wanted = pending.or_else(|| wanted.filter(|wanted| is_other(wanted) && !is_dearer(wanted)));
        subscription.pending = wanted.filter(|_| !subscription.cancel_at_period_end);
    }
}
