//! Work that is done row by row: one that cannot be done must not keep the others from their turn.

use chassis::postgres::{is_conflict, is_unavailable};
use chrono::TimeDelta;
use uuid::Uuid;

use crate::error::Error;

/// The pause after a row that lost its time in the database or Redis: what was in the way passes.
const SOON: TimeDelta = TimeDelta::minutes(1);
/// The pause after a row that somebody has to look at.
const LATER: TimeDelta = TimeDelta::hours(1);

/// For how long a row is left alone that a task failed at, which is logged and counted; none when nothing can be reached, so that going on
/// with another is no use either.
#[must_use]
pub fn pause(task: &'static str, row: Uuid, error: &Error) -> Option<TimeDelta> {
    if error.is_outage() {
        return None;
    }
    let passes = match error {
        Error::Database(error) => is_unavailable(error) || is_conflict(error),
        Error::Redis(_) => true,
        _ => false,
    };
    let pause = if passes { SOON } else { LATER };
    metrics::counter!("billing_rows_set_aside_total", "task" => task).increment(1);
    tracing::error!(task.name = task, row.id = %row, error.message = error.chain(), pause_s = pause.num_seconds(), "a row could not be worked on and is set aside; the others go on");
    Some(pause)
}
