//! Alerts, and messages that came to an end, are taken out when they are older than the retention.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

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
pub async fn keep(pool: &PgPool, days: u32, now: DateTime<Utc>) -> Result<(), Error> {
    let Some(before) = retired_before(days, now) else { return Ok(()) };
    let (mut messages, mut alerts) = (0, 0);
    loop {
        let taken = sqlx::query!(
            r#"select webhook_deliveries_retire($1, $2) as "messages!", budget_alerts_retire($1, $2) as "alerts!""#,
            before,
            BATCH
        );
        let taken = taken.fetch_one(pool).await?;
        messages += taken.messages;
        alerts += taken.alerts;
        if taken.messages.max(taken.alerts) < i64::from(BATCH) {
            break;
        }
    }
    if messages + alerts > 0 {
        tracing::info!(webhook.messages = messages, budget.alerts = alerts, "what is older than the retention was taken out");
    }
    Ok(())
}

/// What was written before this instant is too old; none when all is kept.
fn retired_before(days: u32, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (days > 0).then(|| now.checked_sub_signed(TimeDelta::days(i64::from(days.max(LEAST_DAYS))))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_that_could_be_told_again_whatever_the_configuration_says() {
        let before = |days| retired_before(days, "2030-05-31T12:00:00Z".parse().unwrap()).map(|at| at.to_string());
        assert_eq!(before(0), None);
        assert_eq!(before(1).unwrap(), "2030-03-29 12:00:00 UTC");
        assert_eq!(before(90).unwrap(), "2030-03-02 12:00:00 UTC");
    }
}
