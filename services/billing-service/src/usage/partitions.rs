//! The months of the usage table: made ahead of time, and taken out when they are older than the retention and nothing needs them. Events
//! of other services go in the same task, reports of usage that Stripe has, sums of tags, alerts, and leases that ended.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::{DateTime, Months, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::budgets;
use crate::config::UsageConfig;
use crate::error::Error;
use crate::leases;
use crate::metering::retention;
use crate::rollups;
use crate::state::AppState;
use crate::stripe::meters;

const EVERY: Duration = Duration::from_hours(1);
/// Months that are there before they begin.
const AHEAD: i32 = 3;
/// Months that are never taken out: what is still under way ends in them.
const LEAST: u32 = 3;

/// Keeps the months until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    keep_running("usage-partitions", stop, EVERY, || async {
        let (now, metering) = (state.clock.now(), &state.config.metering);
        // One kind that cannot be taken out does not keep the others.
        let usage = keep(&state.pool, &state.config.usage, now).await;
        let events = retention::keep(&state.pool, metering.retention_months, metering.rules(), now, stop).await.map(drop);
        let reports = meters::retention::keep(&state.pool, now, stop).await.map(drop);
        let tags = rollups::spend::forget(&state.pool, stop).await;
        let alerts = budgets::retention::keep(&state.pool, state.config.alerts_retention_days, now, stop).await;
        // Last, because these may take the longest.
        let leases = leases::retention::keep(state, stop).await;
        let mut first = Ok(());
        for taken in [usage, events, reports, tags, alerts, leases] {
            if let Err(error) = &taken {
                tracing::error!(error.message = error.chain(), "what is old of one kind was not taken out");
            }
            first = first.and(taken);
        }
        Ok(first?)
    })
    .await;
}

/// Makes the months that are missing and takes out those that are too old. Any number of replicas may do it at once.
///
/// # Errors
/// The database's.
pub async fn keep(pool: &PgPool, config: &UsageConfig, now: DateTime<Utc>) -> Result<(), Error> {
    let made = sqlx::query_scalar!(r#"select usage_partitions_create($1, $2) as "made!""#, now, AHEAD + 1).fetch_one(pool).await?;
    if made > 0 {
        tracing::info!(usage.partitions = made, "months of usage were made");
    }
    let Some(before) = retired_before(config.retention_months, now) else { return Ok(()) };
    let retired = retire(pool, before, config.detach).await;
    // Whatever keeps the next one, and also what another replica left.
    while let Some(dropped) = sqlx::query_scalar!(r#"select usage_partitions_drop() as "name!""#).fetch_optional(pool).await? {
        tracing::info!(usage.partition = dropped, "a month of usage that is not kept was dropped");
    }
    retired
}

/// Takes months out, one after the other, the oldest first, until one has to stay.
async fn retire(pool: &PgPool, before: DateTime<Utc>, detach: bool) -> Result<(), Error> {
    loop {
        let retired: Result<Option<String>, Error> = in_transaction!(pool, |transaction| {
            // What a month came to is added up first, and nobody waits for that.
            sqlx::query!("set local statement_timeout = '10min'").execute(&mut **transaction).await?;
            let retired = sqlx::query_scalar!(r#"select usage_partitions_retire($1, $2) as "name!""#, before, detach);
            Ok(retired.fetch_optional(&mut **transaction).await?)
        });
        let Some(partition) = retired? else { return Ok(()) };
        tracing::info!(
            usage.partition = partition,
            usage.detached = detach,
            "a month of usage is older than the retention and was taken out"
        );
    }
}

/// Months that end at or before this instant are too old; none when all are kept.
fn retired_before(months: u32, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (months > 0).then(|| now.checked_sub_months(Months::new(months.max(LEAST)))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_kept_as_long_as_some_instant_of_it_is_within_the_retention() {
        let before = |months, now: &str| retired_before(months, now.parse().unwrap()).map(|at| at.to_rfc3339());
        assert_eq!(before(0, "2030-01-01T00:00:00Z"), None);
        assert_eq!(before(12, "2028-02-29T12:00:00Z").unwrap(), "2027-02-28T12:00:00+00:00");
        assert_eq!(before(1, "2030-05-31T00:00:00Z").unwrap(), "2030-02-28T00:00:00+00:00", "never less than three months");
    }
}
