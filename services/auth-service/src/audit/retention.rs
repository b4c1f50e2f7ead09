//! Events of the audit are taken out when they are older than the retention, if there is one. The service may not remove them itself: a function
//! of the schema's owner does, and nothing that is younger than 90 days.

use chassis::retention::{in_batches, retired_before};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::housekeeping::BATCHES;

/// Rows that go in one transaction.
const BATCH: i32 = 1_000;
/// Days that are never taken out, whatever the configuration says; the function in the database keeps to it by its own clock.
const LEAST_DAYS: u32 = 90;

/// Takes out what is too old, in batches, and no more than a bounded number of them; nothing for 0 days. Any number of replicas may do it at
/// once.
///
/// # Errors
/// The database's; the batches before stay taken out.
pub async fn keep(pool: &PgPool, days: u32, now: DateTime<Utc>, stop: &CancellationToken) -> Result<(), sqlx::Error> {
    let Some(before) = retired_before(days, LEAST_DAYS, now) else { return Ok(()) };
    let take =
        || async move { sqlx::query_scalar!(r#"select audit_events_retire($1, $2) as "taken!""#, before, BATCH).fetch_one(pool).await };
    let all = in_batches(BATCH, BATCHES, stop, take).await?;
    if all > 0 {
        tracing::info!(audit.events = all, "events that are older than the retention were taken out");
    }
    Ok(())
}
