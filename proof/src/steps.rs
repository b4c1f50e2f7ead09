//! The steps at which a program can be ended, and how the program does that to itself.
//!
//! Each name stands once in the source (`chassis::step!`) and once here; `tools/policy/steps_test.py` compares the two. A file says at
//! which step a program ends: a running one can be told, and one that is started again is told as well.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The variable with the path of the file.
pub const FILE: &str = "PROOF_STEP_FILE";

/// A step of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Who takes it.
    pub program: &'static str,
    /// Its name: what has just been done.
    pub name: &'static str,
    /// Why the load may never come there; none where it must.
    pub rare: Option<&'static str>,
}

impl Step {
    /// Whether a customer must have asked for something, and a task must have come round, before it is taken: that takes a while.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        ["top_up.", "intent.", "invoice.", "customer.", "event.", "subscription.", "plan_credit.", "gap."]
            .iter()
            .any(|of| self.name.starts_with(of))
    }
}

const fn of(program: &'static str, name: &'static str) -> Step {
    Step { program, name, rare: None }
}

const fn auth(name: &'static str) -> Step {
    of("auth-service", name)
}

const fn billing(name: &'static str) -> Step {
    of("billing-service", name)
}

/// One of billing-service to which the load does not come, and why.
const fn rare(name: &'static str, why: &'static str) -> Step {
    Step { program: "billing-service", name, rare: Some(why) }
}

const fn chat(name: &'static str) -> Step {
    of("chat-service", name)
}

const NO_MONTH_ENDS: &str = "subscriptions change when a month ends or somebody changes his mind, and here they are young and nobody does";
const NO_KEY_IS_OLD: &str =
    "Stripe forgets a key after a day, and only then is it asked how far a try came; customers are not deleted here either";
const NOBODY_FAILS_TO_PAY: &str = "an invoice is voided that nobody can or shall pay, and every card here is good";
const NOBODY_WAITS_TO_PAY: &str = "a top-up is switched off by money that goes back, seldom while it waits to be sent";
const NO_HOUR_ENDS: &str = "a report is of an hour that has ended, and of a meter that an operator named";
const NOBODY_RESERVES: &str = "chat-service pays from leases: reservations are for services that ask for each request, and none is here";

/// All of them, along the way of the money.
pub const STEPS: &[Step] = &[
    auth("transaction.worked"),
    auth("transaction.committed"),
    auth("outbox.read"),
    auth("outbox.published"),
    auth("outbox.marked"),
    auth("outbox.committed"),
    chat("request.priced"),
    chat("request.admitted"),
    chat("lease.asking"),
    chat("lease.answered"),
    chat("provider.asking"),
    chat("provider.answered"),
    chat("provider.whole"),
    chat("stream.begun"),
    chat("stream.piece"),
    chat("stream.delivered"),
    chat("checkpoint.counted"),
    chat("checkpoint.noted"),
    chat("settlement.known"),
    chat("settlement.handed_over"),
    chat("settlement.writing"),
    chat("settlement.written"),
    chat("settlement.confirmed"),
    billing("transaction.worked"),
    billing("transaction.committed"),
    billing("outbox.read"),
    billing("outbox.published"),
    billing("outbox.marked"),
    billing("outbox.committed"),
    billing("stream.read"),
    billing("usage.charged"),
    billing("stream.handled"),
    billing("stream.acknowledged"),
    billing("lease.instance_known"),
    billing("lease.held"),
    billing("lease.funded"),
    billing("lease.opened"),
    billing("lease.ending"),
    billing("lease.closed_in_redis"),
    billing("lease.given_back"),
    billing("lease.forgotten"),
    billing("lease.drained"),
    billing("customer.claimed"),
    billing("customer.made"),
    billing("customer.stored"),
    billing("customer.card_found"),
    billing("customer.card_kept"),
    billing("checkout.stored"),
    billing("checkout.customer_known"),
    billing("checkout.sent"),
    billing("checkout.opened"),
    billing("webhook.verified"),
    billing("webhook.stored"),
    billing("event.claimed"),
    billing("event.fetched"),
    billing("event.applied"),
    billing("top_up.wanted"),
    billing("intent.claimed"),
    billing("intent.performed"),
    billing("intent.marked"),
    billing("invoice.made"),
    billing("invoice.item_added"),
    billing("invoice.finalized"),
    billing("subscription.stored"),
    billing("subscription.recorded"),
    billing("subscription.effect_stored"),
    billing("plan_credit.found"),
    billing("plan_credit.issued"),
    billing("gap.page_read"),
    billing("gap.stored"),
    billing("gap.noted"),
    rare("subscription.due", NO_MONTH_ENDS),
    rare("subscription.written", NO_MONTH_ENDS),
    rare("resumed_invoice.found", NO_KEY_IS_OLD),
    rare("resumed_invoice.deleted", NO_KEY_IS_OLD),
    rare("resumed_invoice.paid", NO_KEY_IS_OLD),
    rare("left_invoice.found", NO_KEY_IS_OLD),
    rare("left_invoice.deleted", NO_KEY_IS_OLD),
    rare("left_invoice.noted", NO_KEY_IS_OLD),
    rare("left_invoice.voided", NO_KEY_IS_OLD),
    rare("invoice.voided", NOBODY_FAILS_TO_PAY),
    rare("invoice.void_refused", NOBODY_FAILS_TO_PAY),
    rare("given_up_charge.taken_away", NOBODY_FAILS_TO_PAY),
    rare("top_up.given_up", NOBODY_WAITS_TO_PAY),
    rare("reservation.stored", NOBODY_RESERVES),
    rare("reservation.held", NOBODY_RESERVES),
    rare("reservation.returned", NOBODY_RESERVES),
    rare("reservation.released", NOBODY_RESERVES),
    rare("reservation.recorded", NOBODY_RESERVES),
    rare("meter_report.claimed", NO_HOUR_ENDS),
    rare("meter_report.performed", NO_HOUR_ENDS),
    rare("meter_report.marked", NO_HOUR_ENDS),
    Step {
        program: "billing-service",
        name: "invoice.paid",
        rare: Some("an invoice that could not be collected while it was finalized is paid by a request of its own"),
    },
];

/// Where the file of a program is.
#[must_use]
pub fn file(folder: &Path, program: &str) -> PathBuf {
    folder.join(program)
}

/// What stands in the file: which order it is, the step, and the how manieth time counts.
#[must_use]
pub fn order(serial: u64, step: &Step, time: u64) -> String {
    format!("{serial} {} {time}", step.name)
}

/// Whether a program that takes a step ends now, given what its file says and how often it has taken the step under this order.
fn is_due(text: &str, name: &str, taken: &mut (String, u64)) -> bool {
    let mut words = text.split_whitespace().skip(1);
    let (Some(wanted), Some(time)) = (words.next(), words.next().and_then(|time| time.parse::<u64>().ok())) else { return false };
    if wanted != name {
        return false;
    }
    if taken.0 != text {
        *taken = (text.to_owned(), 0);
    }
    taken.1 += 1;
    taken.1 == time
}

/// Takes an order away. Either the program does, and ends, or the drill does, and nobody ends by it any more, however long the program waits
/// for a processor after it has read it.
#[must_use]
pub fn withdrawn(file: &Path) -> bool {
    std::fs::remove_file(file).is_ok()
}

/// Takes a step: the process ends here when its file says so. Nothing is unwound, flushed or closed: `abort` is a signal that nobody
/// catches, as `SIGKILL` is, and tells the drill that it was this.
pub fn take(name: &'static str) {
    static FILE_OF_THIS: OnceLock<Option<PathBuf>> = OnceLock::new();
    static TAKEN: Mutex<(String, u64)> = Mutex::new((String::new(), 0));
    let Some(path) = FILE_OF_THIS.get_or_init(|| std::env::var_os(FILE).map(PathBuf::from)) else { return };
    // Most of the time there is none.
    let Ok(text) = std::fs::read_to_string(path) else { return };
    if is_due(&text, name, &mut TAKEN.lock().unwrap_or_else(PoisonError::into_inner)) && withdrawn(path) {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_the_how_manieth_time_it_takes_the_step_of_its_order() {
        let mut taken = (String::new(), 0);
        let first = order(1, &billing("lease.held"), 2);
        assert!(!is_due("", "lease.held", &mut taken), "there is no order");
        assert!(!is_due(&first, "lease.held", &mut taken));
        assert!(!is_due(&first, "lease.funded", &mut taken), "another step");
        assert!(is_due(&first, "lease.held", &mut taken));
        let again = order(2, &billing("lease.held"), 2);
        assert!(!is_due(&again, "lease.held", &mut taken), "a new order begins anew");
        assert!(is_due(&again, "lease.held", &mut taken));
    }

    #[test]
    fn an_order_is_taken_away_by_the_program_or_by_the_drill_and_not_by_both() {
        let path = std::env::temp_dir().join(format!("trivet-step-{}", std::process::id()));
        std::fs::write(&path, order(1, &billing("lease.held"), 1)).unwrap();
        assert_eq!([withdrawn(&path), withdrawn(&path)], [true, false]);
    }

    #[test]
    fn no_step_is_listed_twice() {
        for (at, step) in STEPS.iter().enumerate() {
            assert!(!STEPS[..at].contains(step), "{step:?}");
        }
    }
}
