//! How fast Stripe is asked: below its limits, so that a burst of ours is a queue here and not a 429 there [B-67].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Turns, one after the other; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    between: Duration,
    next: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    /// So many turns in a second at most; with 0 as many as are asked for.
    pub(super) fn of(per_second: u32) -> Self {
        Self { between: Duration::from_secs(1).checked_div(per_second).unwrap_or_default(), next: Arc::default() }
    }

    /// Waits for the next turn.
    pub(super) async fn turn(&self) {
        if self.between.is_zero() {
            return;
        }
        let at = {
            let mut next = self.next.lock().await;
            let at = after(*next, Instant::now());
            *next = Some(at + self.between);
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
        let (pace, now, mut next) = (Pace::of(20), Instant::now(), None);
        for number in 0..40 {
            let turn = after(next, now);
            assert_eq!(turn, now + Duration::from_secs(number) / 20);
            next = Some(turn + pace.between);
        }
        let later = now + Duration::from_mins(1);
        assert_eq!(after(next, later), later);
        assert_eq!(Pace::of(0).between, Duration::ZERO, "no limit");
    }
}
