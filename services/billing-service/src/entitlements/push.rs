//! Tells the other services that what an organization may do has changed: they ask again.

use std::time::Duration;

use chassis::idempotency;
use chassis::outbox::{self, Relay};
use chassis::postgres::keep_running;
use chrono::TimeDelta;
use contracts::entitlements::BILLING_STREAM;
use tokio_util::sync::CancellationToken;

use crate::state::AppState;

const HOUSEKEEPING: Duration = Duration::from_hours(1);
/// How long what was published, and what was answered, is kept.
const KEEP: TimeDelta = TimeDelta::days(30);

/// Publishes this service's facts.
#[must_use]
pub fn relay(state: &AppState) -> Relay {
    Relay::new(state.pool.clone(), state.redis.clone(), BILLING_STREAM, state.clock.clone())
}

/// Forgets facts that were published, and answers that were recorded, a month ago [B-12].
pub async fn housekeeping(state: &AppState, stop: &CancellationToken) {
    keep_running("housekeeping", stop, HOUSEKEEPING, || async {
        let before = state.clock.now() - KEEP;
        outbox::prune(&state.pool, before).await?;
        idempotency::prune(&state.pool, before).await?;
        Ok(())
    })
    .await;
}
