//! How fast Stripe is asked: below its limits, so that a burst of ours is a queue here and not a 429 there [B-67].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Between two requests of a process: 20 in a second, below the 25 of test mode.
const BETWEEN: Duration = Duration::from_millis(50);

/// Turns, one after the other; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Arc<Mutex<Option<Instant>>>);

impl Pace {
    /// Waits for the next turn.
    pub(super) async fn turn(&self) {
        let at = {
            let mut next = self.0.lock().await;
            let at = after(*next, Instant::now());
            *next = Some(at + BETWEEN);
            at
        };
        sleep_until(at).await;
    }
}

/// Whoever was away for a while is not made to wait, and saves up nothing.
fn after(next: Option<Instant>, now: Instant) -> Instant {
    next.map_or(now, |next| next.max(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [B-67]
    #[test]
    fn a_burst_is_spread_to_twenty_in_a_second() {
        let (now, mut next) = (Instant::now(), None);
        for number in 0..40 {
            let turn = after(next, now);
            assert_eq!(turn, now + Duration::from_secs(number) / 20);
            next = Some(turn + BETWEEN);
        }
        let later = now + Duration::from_mins(1);
        assert_eq!(after(next, later), later);
    }
}
