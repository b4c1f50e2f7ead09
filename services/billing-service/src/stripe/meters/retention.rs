//! What is kept of reports: those that Stripe has go when nobody reports or compares their hours any more.

use chassis::retention::in_batches;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// How long they are kept: longer than comparisons look back.
const KEPT: TimeDelta = TimeDelta::days(70);
/// Rows that go in one transaction.
const BATCH: i32 = 5_000;

/// Takes out what is too old; returns how many. Any number of replicas may do it at once.
///
/// # Errors
/// The database's.
pub async fn keep(pool: &PgPool, now: DateTime<Utc>, stop: &CancellationToken) -> Result<i64, Error> {
    let take = || async move {
        let taken = sqlx::query_scalar!(r#"select stripe_meter_reports_retire($1, $2) as "taken!""#, now - KEPT, BATCH);
        taken.fetch_one(pool).await
    };
    Ok(in_batches(BATCH, u32::MAX, stop, take).await?)
}
