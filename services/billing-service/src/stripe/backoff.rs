//! When something that failed is tried again.

use std::time::Duration;

use chassis::Random;
use chrono::{DateTime, Utc};

use super::transport::TransportError;
use crate::state::AppState;

/// The longest pause.
pub const LONGEST_SECONDS: i64 = 3600;

/// The pause after so many tries: doubled with each, up to the longest.
pub fn seconds(attempts: i32) -> i64 {
    2_i64.pow(u32::try_from(attempts.clamp(0, 12)).unwrap_or(12)).min(LONGEST_SECONDS)
}

/// A pause and up to a quarter of it, so that many that failed together do not come back together.
pub(super) fn spread(random: &Random, pause: Duration) -> Duration {
    pause + pause * u32::from(random.bytes::<1>()[0]) / 1024
}

/// The instant after a pause, spread.
pub fn next(state: &AppState, seconds: i64) -> DateTime<Utc> {
    let pause = Duration::from_secs(seconds.clamp(0, LONGEST_SECONDS).unsigned_abs());
    state.clock.now() + spread(&state.random, pause)
}

/// When to ask Stripe again after so many tries: a longer pause with each, as long as Stripe asks for, and the longest where the same
/// call cannot succeed before somebody changes something.
pub fn after(state: &AppState, attempts: i32, error: &TransportError) -> DateTime<Utc> {
    let grown = if error.is_final() { LONGEST_SECONDS } else { seconds(attempts) };
    let asked = error.retry_after().map_or(0, |after| i64::try_from(after.as_secs()).unwrap_or(LONGEST_SECONDS));
    next(state, grown.max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        assert_eq!([0, 1, 2, 11, 12, i32::MAX].map(seconds), [1, 2, 4, 2048, 3600, 3600]);
    }

    /// [B-67]
    #[test]
    fn pauses_of_many_that_failed_together_differ_and_none_is_shorter_than_it_was_to_be() {
        let (random, pause) = (Random::seeded(1), Duration::from_millis(200));
        let mut pauses: Vec<Duration> = (0..64).map(|_| spread(&random, pause)).collect();
        assert!(pauses.iter().all(|spread| (pause..pause * 5 / 4).contains(spread)), "{pauses:?}");
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 32, "{pauses:?}");
    }
}
