//! What a change would cost, now and at the next period: the machine's own answer, not another calculation.

use chrono::{DateTime, Utc};

use super::command::{Command, Refusal};
use super::machine::decide;
use super::state::{Charge, Effect, Outcome};
use super::status::Status;

/// What a change would cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// To be paid at once, if anything.
    pub now: Option<Charge>,
    /// To be paid when the period ends, if it goes on and costs anything.
    pub next: Option<Charge>,
    /// When that is; none when nothing comes by itself.
    pub next_at: Option<DateTime<Utc>>,
}

/// The cost of a decision.
///
/// # Errors
/// [`Refusal`] when the next period cannot be counted.
pub fn cost(outcome: &Outcome) -> Result<Preview, Refusal> {
    let after = &outcome.subscription;
    // A first payment that is awaited is taken for paid: it is what the preview is about.
    let goes_on = matches!(after.status, Status::Incomplete | Status::Trialing | Status::Active) && !after.cancel_at_period_end;
    let mut paid = after.clone();
    if paid.status == Status::Incomplete {
        paid.status = if paid.waits_for_card() { Status::Trialing } else { Status::Active };
    }
    let next = if goes_on { charge(&decide(&paid, &Command::Renew, after.period.end)?.effects) } else { None };
    Ok(Preview { now: charge(&outcome.effects), next, next_at: goes_on.then_some(after.period.end) })
}

fn charge(effects: &[Effect]) -> Option<Charge> {
    effects.iter().find_map(|effect| if let Effect::Charge(charge) = effect { Some(charge.clone()) } else { None })
}
