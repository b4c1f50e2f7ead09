//! What a period costs, and what the rest of one does.

use chrono::{DateTime, Utc};

use super::unpaid::stands;
use crate::ledger::CREDIT;
use crate::subscriptions::command::{AppliedCoupon, Lasts, Off, Refusal};
use crate::subscriptions::period::Period;
use crate::subscriptions::proration::{split, unused};
use crate::subscriptions::state::{Charge, Effect, Grant, Line, LineKind, OpenCharge, Subscription};
use crate::subscriptions::terms::Terms;

/// What is left of a period that ends early.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    /// Of what was paid.
    pub micros: i64,
    /// Of its credit.
    pub credit_micros: i64,
}

/// Charges the whole of the current period, less what is left of the one before, and promises its credit, less what is left of the
/// credit before.
pub fn whole_period(subscription: &mut Subscription, reason: &str, carried: Carried, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
    let total = subscription.terms.total_micros(subscription.seats)?;
    let (terms, period) = (subscription.terms.clone(), subscription.period);
    let line = |kind, amount_micros| Line { kind, code: terms.plan.clone(), amount_micros, period };
    let mut lines = vec![line(LineKind::Plan, terms.base_micros), line(LineKind::Seats, terms.seats_micros(subscription.seats)?)];
    let off = discount(subscription, total);
    if let (Some(coupon), true) = (&subscription.coupon, off > 0) {
        lines.push(Line { kind: LineKind::Discount, code: coupon.code.clone(), amount_micros: -off, period });
    }
    subscription.value_micros = total - off;
    use_coupon(subscription, off);
    lines.push(line(LineKind::Unused, -carried.micros));
    let begins = period.start;
    let grant = (terms.credit_micros() - carried.credit_micros).max(0);
    subscription.credited_micros = terms.credit_micros().max(carried.credit_micros);
    demand(subscription, reason.to_owned(), lines, (grant, begins), effects)
}

/// Charges the difference that new terms or seats make for the rest of the period.
pub fn rest_of_period(
    subscription: &mut Subscription,
    terms: &Terms,
    seats: u32,
    reason: &str,
    now: DateTime<Utc>,
    effects: &mut Vec<Effect>,
) -> Result<(), Refusal> {
    let (period, currency, old) = (subscription.period, terms.currency, subscription.terms.clone());
    let rest = Period { start: now.clamp(period.start, period.end), end: period.end };
    let before = subscription.terms.total_micros(subscription.seats)?;
    // A discount that was given for the period stays given: only the difference of the full prices is new.
    let value = subscription.value_micros.checked_add(terms.total_micros(seats)? - before).ok_or(Refusal::TooLarge)?;
    let lines = vec![
        Line {
            kind: LineKind::Unused,
            code: old.plan.clone(),
            amount_micros: -unused(subscription.value_micros, period, now, currency),
            period: rest,
        },
        Line { kind: LineKind::Remaining, code: terms.plan.clone(), amount_micros: unused(value, period, now, currency), period: rest },
    ];
    // Measured by the most there was in the period, not by the plan before: to and fro between two plans gives the difference once.
    let given = subscription.credited();
    let grant = (unused(terms.credit_micros(), period, now, CREDIT) - unused(given, period, now, CREDIT)).max(0);
    subscription.credited_micros = given.max(terms.credit_micros());
    subscription.value_micros = value;
    subscription.terms = terms.clone();
    subscription.seats = seats;
    let reason = format!("{reason}-{}", subscription.revision);
    demand(subscription, reason, lines, (grant, now), effects)
}

/// Turns lines into a charge that is open, or into nothing to pay with the credit at once, as a gift.
pub fn demand(
    subscription: &mut Subscription,
    reason: String,
    lines: Vec<Line>,
    (grant_micros, given): (i64, DateTime<Utc>),
    effects: &mut Vec<Effect>,
) -> Result<(), Refusal> {
    let lines: Vec<Line> = lines.into_iter().filter(|line| line.amount_micros != 0).collect();
    let total = lines.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.amount_micros)).ok_or(Refusal::TooLarge)?;
    if total < 0 {
        return Err(Refusal::NotAnUpgrade);
    }
    let (period_start, currency) = (subscription.period.start, subscription.terms.currency);
    let expires_at = subscription.terms.credit.and_then(|credit| credit.expires_at(subscription.period, given));
    let days = subscription.terms.credit.and_then(|credit| credit.days());
    let grant = Grant { period_start, reason: reason.clone(), currency: CREDIT, amount_micros: grant_micros, expires_at, days };
    let grant = (grant_micros > 0).then_some(grant);
    if total > 0 {
        subscription.open.push(OpenCharge { period_start, reason: reason.clone(), failed: false, given_up: false, grant, before: None });
        effects.push(Effect::Charge(Charge { period_start, reason, currency, lines, total_micros: total }));
    } else if let Some(gift) = grant {
        // What was given stays given, and what it was given for.
        stands(&mut subscription.open);
        effects.push(Effect::Gift(gift));
    }
    Ok(())
}

/// What the coupon takes off a period's total.
fn discount(subscription: &Subscription, total: i64) -> i64 {
    let is_for = |coupon: &&AppliedCoupon| coupon.plans.is_empty() || coupon.plans.contains(&subscription.terms.plan);
    let coupon = subscription.coupon.as_ref().filter(|coupon| lasts(coupon, subscription.period)).filter(is_for);
    let Some(coupon) = coupon else { return 0 };
    match coupon.off {
        Off::Percent(percent) => {
            let percent = u64::from(percent.min(100));
            split(total, &[percent, 100 - percent], subscription.terms.currency)[0]
        }
        Off::Micros(micros) => micros.clamp(0, total),
    }
}

fn lasts(coupon: &AppliedCoupon, period: Period) -> bool {
    match coupon.lasts {
        Lasts::Once | Lasts::Forever => true,
        Lasts::Until(end) => period.start < end,
    }
}

/// A coupon for one charge is used by the first that it took something off; one that ended is dropped.
fn use_coupon(subscription: &mut Subscription, off: i64) {
    let period = subscription.period;
    subscription.coupon = subscription.coupon.take().filter(|coupon| lasts(coupon, period) && !(coupon.lasts == Lasts::Once && off > 0));
}
