//! What is still granted to a call whose client left [trap 4].

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use crate::state::AppState;

/// A place among such calls, and some time.
pub(super) struct Drain {
    until: Instant,
    /// None, when there was none.
    place: Option<OwnedSemaphorePermit>,
}

impl Drain {
    /// From now on.
    pub(super) fn begin(state: &AppState) -> Self {
        Self { until: Instant::now() + state.drain.time.0, place: state.drains.clone().try_acquire_owned().ok() }
    }

    /// Whether the call is to be ended now.
    pub(super) fn is_over(&self) -> bool {
        self.place.is_none() || self.until <= Instant::now()
    }

    /// Resolves when the call is to be ended.
    pub(super) async fn over(&self) {
        if self.place.is_some() {
            sleep_until(self.until).await;
        }
    }
}
