//! Alerts, and messages that came to an end, are taken out when they are older than the retention.

use chassis::retention::{in_batches, retired_before};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Rows that go in one transaction.
const BATCH: i32 = 5_000;
/// Days that are never taken out, whatever the configuration says: the row of an alert is what keeps it from being told twice, in its
/// period and in the one after.
const LEAST_DAYS: u32 = 63;

/// Takes out what is too old; any number of replicas may do it at once.
///
/// # Errors
/// The database's.
pub async fn keep(pool: &PgPool, days: u32, now: DateTime<Utc>, stop: &CancellationToken) -> Result<(), Error> {
    let Some(before) = retired_before(days, LEAST_DAYS, now) else { return Ok(()) };
    let messages = || async move {
        sqlx::query_scalar!(r#"select webhook_deliveries_retire($1, $2) as "taken!""#, before, BATCH).fetch_one(pool).await
    };
    let messages = in_batches(BATCH, u32::MAX, stop, messages).await?;
    let alerts =
        || async move { sqlx::query_scalar!(r#"select budget_alerts_retire($1, $2) as "taken!""#, before, BATCH).fetch_one(pool).await };
    let alerts = in_batches(BATCH, u32::MAX, stop, alerts).await?;
    if messages + alerts > 0 {
        tracing::info!(webhook.messages = messages, budget.alerts = alerts, "what is older than the retention was taken out");
    }
    Ok(())
}
