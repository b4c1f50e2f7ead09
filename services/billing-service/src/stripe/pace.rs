//! How fast Stripe is asked: below its limits, so that a burst of ours is a queue here and not a 429 there [B-67].
//!
//! There are two rows of turns. All calls stand in one, so that together they never come faster than they may. Whoever waits for an answer
//! stands in another one before that, in which a turn comes half as often: whatever customers ask, every other turn is left to what nobody waits
//! for (wishes, events, comparisons), and so are those that customers do not use. Their row is a second long at most, and in neither does anybody
//! take a turn that comes after it has given up: it is told so at once and not some seconds later, and nobody waits for a turn that is not used.
//!
//! It is two rows, and neither a priority nor a row for each customer, because that is the least that starves nobody; that no customer fills the
//! row of those who wait alone is seen to by [`Places`](crate::places::Places).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::patience::Asker;
use super::transport::TransportError;

/// How long the row of those who wait for an answer may be.
const LONGEST_ROW: Duration = Duration::from_secs(1);

/// Turns to ask Stripe; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// Of everybody.
    all: Arc<Turns>,
    /// Of those who wait for an answer.
    waiting: Arc<Turns>,
}

impl Pace {
    /// So many turns in a second at most; with 0 as many as are asked for.
    pub(super) fn of(per_second: u32) -> Self {
        let between = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        Self { all: Turns::every(between).into(), waiting: Turns::every(between * 2).into() }
    }

    /// Waits for the next turn.
    ///
    /// # Errors
    /// [`TransportError::Late`], at once, when it would come too late; then none was taken.
    pub(super) async fn turn(&self, asker: Asker) -> Result<(), TransportError> {
        if self.all.between.is_zero() {
            return Ok(());
        }
        if asker.waits {
            come(self.of_waiting(Instant::now(), asker.until)).await?;
        }
        come(self.all.take(Instant::now(), asker.until)).await
    }

    /// Takes the next turn of those who wait for an answer, within a second; where turns come less often than that, the very next one.
    fn of_waiting(&self, now: Instant, until: Option<Instant>) -> Option<Instant> {
        let end = now + LONGEST_ROW.max(self.waiting.between);
        self.waiting.take(now, Some(until.map_or(end, |until| until.min(end))))
    }
}

/// Waits for a turn that was taken.
async fn come(turn: Option<Instant>) -> Result<(), TransportError> {
    sleep_until(turn.ok_or(TransportError::Late)?).await;
    Ok(())
}

/// A row of turns, one after the other.
#[derive(Debug)]
struct Turns {
    between: Duration,
    next: Mutex<Option<Instant>>,
}

impl Turns {
    fn every(between: Duration) -> Self {
        Self { between, next: Mutex::default() }
    }

    /// Takes the next turn and says when it is; none that is after `until`.
    fn take(&self, now: Instant, until: Option<Instant>) -> Option<Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was away for a while is not made to wait, and saves up nothing.
        let turn = next.map_or(now, |next| next.max(now));
        if until.is_some_and(|until| turn > until) {
            return None;
        }
        *next = Some(turn + self.between);
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// [B-67]
    #[test]
    fn a_burst_is_spread_to_twenty_in_a_second() {
        let (pace, now) = (Pace::of(20), Instant::now());
        for number in 0..40 {
            assert_eq!(pace.all.take(now, None), Some(now + Duration::from_secs(number) / 20));
        }
        let later = now + Duration::from_mins(1);
        assert_eq!(pace.all.take(later, None), Some(later));
    }

    #[tokio::test]
    async fn without_a_limit_nobody_waits_however_many_ask() {
        let (pace, asker) = (Pace::of(0), Asker { until: None, waits: true });
        for _ in 0..100 {
            assert!(matches!(pace.turn(asker).now_or_never(), Some(Ok(()))));
        }
    }

    /// [B-67] Or the row would grow with each who gave up, until nobody had the time for it.
    #[test]
    fn whoever_cannot_wait_for_its_turn_takes_none() {
        let (pace, now) = (Pace::of(20), Instant::now());
        let in_time = Some(now + Duration::from_millis(100));
        let taken: Vec<bool> = (0..1000).map(|_| pace.all.take(now, in_time).is_some()).collect();
        assert_eq!((&taken[..3], taken[3..].contains(&true)), (&[true; 3][..], false));
        assert_eq!(pace.all.take(now, None), Some(now + Duration::from_millis(150)), "somebody who was refused has a turn");
    }

    /// [B-67] Two hundred ask in each second of a minute.
    #[test]
    fn those_who_wait_for_an_answer_have_half_of_the_turns_and_wait_a_second_at_most() {
        let (pace, start) = (Pace::of(20), Instant::now());
        let (mut taken, mut longest) = (0, Duration::ZERO);
        for number in 0..60 * 200 {
            let now = start + Duration::from_millis(5) * number;
            if let Some(turn) = pace.of_waiting(now, None) {
                (taken, longest) = (taken + 1, longest.max(turn - now));
            }
        }
        assert!((60 * 10..=60 * 10 + 11).contains(&taken), "{taken}");
        assert!(longest <= Duration::from_secs(1), "{longest:?}");
        assert_eq!(pace.all.take(start, None), Some(start), "they have taken turns that are not theirs");
    }

    #[test]
    fn where_turns_are_rare_somebody_who_waits_has_the_next_one_all_the_same() {
        let (pace, now) = (Pace::of(1), Instant::now());
        let turns = [(); 3].map(|()| pace.of_waiting(now, None));
        assert_eq!(turns, [Some(now), Some(now + Duration::from_secs(2)), None]);
        let hurried = pace.of_waiting(now + Duration::from_secs(3), Some(now + Duration::from_millis(3500)));
        assert_eq!(hurried, None, "its turn would come when it has gone");
    }
}
