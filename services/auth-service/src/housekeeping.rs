//! What nobody needs any more is removed, each kind by itself: one that cannot be removed does not keep the others.

use std::time::Duration;

use chassis::postgres::keep_running;
use chassis::{idempotency, outbox};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::state::AppState;
use crate::{audit, internal, sessions};

/// How often it is done.
const EVERY: Duration = Duration::from_mins(10);
/// How long answers and published facts are kept.
const KEPT: TimeDelta = TimeDelta::days(3);
/// Batches of one kind in one run; what is left goes in the next. At a thousand rows each it is five times what thirty thousand people leave
/// from one run to the next.
pub const BATCHES: u32 = 50;

/// Removes what is old until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    keep_running("housekeeping", stop, EVERY, || async {
        Ok(once(&state.pool, state.audit_retention_days, state.clock.now(), stop).await?)
    })
    .await;
}

/// Removes what is old of every kind. Any number of replicas may do it at once.
///
/// # Errors
/// The database's for the first kind that could not be removed; the others were tried, and each failure is logged.
pub async fn once(pool: &PgPool, audit_days: u32, now: DateTime<Utc>, stop: &CancellationToken) -> Result<(), sqlx::Error> {
    let before = now - KEPT;
    let kinds = [
        ("published facts", outbox::prune(pool, before).await.map(drop)),
        ("answers", idempotency::prune(pool, before).await.map(drop)),
        ("assertions", internal::prune_assertions(pool, now).await),
        ("sessions", sessions::retention::keep(pool, now, stop).await),
        ("the audit", audit::retention::keep(pool, audit_days, now, stop).await),
    ];
    let mut first = Ok(());
    for (kind, removed) in kinds {
        if let Err(error) = &removed {
            tracing::error!(housekeeping.kind = kind, error.message = %error, "what is old of one kind was not removed");
        }
        first = first.and(removed);
    }
    first
}
