//! Metered events that are older than the retention are taken out, a whole month at a time; their sums stay. The key that makes an event
//! count once goes with it, so nothing goes that a sender could still repeat.

use chassis::retention::in_batches;
use chrono::{DateTime, Months, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::placement::Rules;
use crate::error::Error;

/// Events that go in one transaction.
const BATCH: i32 = 5_000;
/// Months that are never taken out, whatever the configuration says.
const LEAST: u32 = 3;

/// Takes out what is too old; returns how many events. Any number of replicas may do it at once.
///
/// # Errors
/// The database's.
pub async fn keep(pool: &PgPool, months: u32, rules: Rules, now: DateTime<Utc>, stop: &CancellationToken) -> Result<i64, Error> {
    let Some(before) = retired_before(months, rules, now) else { return Ok(0) };
    let take =
        || async move { sqlx::query_scalar!(r#"select metered_events_retire($1, $2) as "taken!""#, before, BATCH).fetch_one(pool).await };
    let all = in_batches(BATCH, u32::MAX, stop, take).await?;
    if all > 0 {
        tracing::info!(metering.events = all, "events that are older than the retention were taken out");
    }
    Ok(all)
}

/// Months that end at or before this instant are too old; none when all are kept. No month that takes events still, and none of which an
/// event could come again: younger than the late window, it would not be refused, and counted twice [B-55].
fn retired_before(months: u32, rules: Rules, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let kept = (months > 0).then(|| now.checked_sub_months(Months::new(months.max(LEAST)))).flatten()?;
    let repeatable = now.checked_sub_signed(rules.late_window)?;
    let open = now.checked_sub_signed(rules.close_after)?;
    Some(kept.min(repeatable).min(open))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn rules(late: i64, close: i64) -> Rules {
        Rules { late_window: TimeDelta::days(late), close_after: TimeDelta::days(close) }
    }

    #[test]
    fn nothing_goes_unless_it_is_asked_for_and_never_the_last_three_months() {
        let before = |months, late, close| {
            retired_before(months, rules(late, close), "2030-05-31T00:00:00Z".parse().unwrap()).map(|at| at.date_naive().to_string())
        };
        assert_eq!(before(0, 35, 3), None);
        assert_eq!(before(1, 35, 3).unwrap(), "2030-02-28");
        assert_eq!(before(12, 35, 3).unwrap(), "2029-05-31");
        assert_eq!(before(3, 200, 3).unwrap(), "2029-11-12", "a sender may repeat what is that old");
        assert_eq!(before(3, 35, 300).unwrap(), "2029-08-04", "a month is open that long");
    }

    proptest! {
        /// [B-55] [B-59] Whatever an event's age: what could count, anew or in its own month, is kept.
        #[test]
        fn an_event_of_a_month_that_goes_would_be_refused_as_too_late(
            seconds in 1_000_000_000_i64..4_000_000_000, age in 0_i64..40_000_000, months in 1_u32..24, late in 1_i64..400, close in 0_i64..90
        ) {
            let (now, rules) = (DateTime::from_timestamp(seconds, 0).unwrap(), rules(late, close));
            let occurred = now - TimeDelta::seconds(age);
            let before = retired_before(months, rules, now).unwrap();
            if rules.place(occurred, now).is_ok() {
                // Only whole months that end at or before the instant go, so all that goes is before it.
                prop_assert!(occurred >= before);
            }
        }
    }
}
