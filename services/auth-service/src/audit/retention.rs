//! Events of the audit are taken out when they are older than the retention, if there is one. The service may not remove them itself: a function
//! of the schema's owner does, and nothing that is younger than 90 days.

use chrono::{DateTime, TimeDelta, Utc};
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
    let Some(before) = retired_before(days, now) else { return Ok(()) };
    let mut all = 0;
    for _ in 0..BATCHES {
        if stop.is_cancelled() {
            break;
        }
        let taken = sqlx::query_scalar!(r#"select audit_events_retire($1, $2) as "taken!""#, before, BATCH).fetch_one(pool).await?;
        all += taken;
        if taken < i64::from(BATCH) {
            break;
        }
    }
    if all > 0 {
        tracing::info!(audit.events = all, "events that are older than the retention were taken out");
    }
    Ok(())
}

/// What was recorded before this instant is too old; none when all is kept.
fn retired_before(days: u32, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (days > 0).then(|| now.checked_sub_signed(TimeDelta::days(i64::from(days.max(LEAST_DAYS))))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_unless_it_is_asked_for_and_never_the_last_ninety_days() {
        let before = |days| retired_before(days, "2030-05-31T12:00:00Z".parse().unwrap()).map(|at| at.to_string());
        assert_eq!(before(0), None);
        assert_eq!(before(1).unwrap(), "2030-03-02 12:00:00 UTC");
        assert_eq!(before(400).unwrap(), "2029-04-26 12:00:00 UTC");
        assert_eq!(before(u32::MAX), None, "a retention that reaches before all time takes nothing out");
    }
}
