//! How many requests the account may make in a second: beyond that they are refused, as at Stripe.

use std::sync::{Mutex, PoisonError};

/// What was admitted in the current second of the account's clock; where that stands still, a second lasts until it is moved.
#[derive(Debug, Default)]
pub(crate) struct Rate(Mutex<(i64, u32)>);

impl Rate {
    /// Whether one more fits into this second; all of them do without a limit.
    pub(crate) fn admits(&self, limit: Option<u32>, now: i64) -> bool {
        let Some(limit) = limit else { return true };
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != now {
            *current = (now, 0);
        }
        let fits = current.1 < limit;
        current.1 += u32::from(fits);
        fits
    }
}
