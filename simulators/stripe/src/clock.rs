//! The account's time. Test clocks have their own; this is the time of everything else.

use std::time::{SystemTime, UNIX_EPOCH};

/// What the global clock starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The system's time, which goes on by itself.
    Now,
    /// An instant (seconds since 1970), from which it only moves when told to.
    At(i64),
}

/// The global clock: seconds since 1970, moved forward by hand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Start,
    ahead: i64,
}

impl Clock {
    pub(crate) const fn new(start: Start) -> Self {
        Self { start, ahead: 0 }
    }

    /// Seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.ahead
            + match self.start {
                Start::At(at) => at,
                Start::Now => system_seconds(),
            }
    }

    /// What signatures of webhooks are dated by: never ahead of a receiver whose clock is the system's.
    pub(crate) fn signing_time(&self) -> i64 {
        match self.start {
            Start::At(_) => self.now(),
            Start::Now => system_seconds(),
        }
    }

    /// How far it was moved by hand, in seconds.
    pub(crate) const fn ahead(&self) -> i64 {
        self.ahead
    }

    /// Takes up where another run of the same clock ended.
    pub(crate) const fn resume(&mut self, ahead: i64) {
        self.ahead = ahead;
    }

    /// Moves to an instant; never back.
    pub(crate) fn advance_to(&mut self, to: i64) {
        self.ahead += (to - self.now()).max(0);
    }
}

fn system_seconds() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock; chassis is no dependency of a simulator")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or_default()
}
