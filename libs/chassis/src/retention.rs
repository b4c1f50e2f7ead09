//! What is older than its retention is taken out, a batch in a transaction, so that nobody waits for it and an end in between loses nothing.

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

/// What was written before this instant is too old; none where all is kept, for 0 days. Never less than `least_days` are kept, whatever the
/// configuration says.
#[must_use]
pub fn retired_before(days: u32, least_days: u32, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (days > 0).then(|| now.checked_sub_signed(TimeDelta::days(i64::from(days.max(least_days))))).flatten()
}

/// Takes out batch after batch until one is not full, `most` have gone or the token is cancelled; returns how many rows went. `take` says how
/// many went with its batch.
///
/// # Errors
/// Those of `take`; the batches before stay taken out.
pub async fn in_batches<Taken, E>(batch: i32, most: u32, stop: &CancellationToken, mut take: impl FnMut() -> Taken) -> Result<i64, E>
where
    Taken: Future<Output = Result<i64, E>>,
{
    let mut all = 0;
    for _ in 0..most {
        if stop.is_cancelled() {
            break;
        }
        let taken = take().await?;
        all += taken;
        if taken < i64::from(batch) {
            break;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_unless_it_is_asked_for_and_never_the_last_days() {
        let before = |days| retired_before(days, 90, "2030-05-31T12:00:00Z".parse().expect("an instant")).map(|at| at.to_string());
        assert_eq!(before(0), None);
        assert_eq!(before(1).as_deref(), Some("2030-03-02 12:00:00 UTC"));
        assert_eq!(before(400).as_deref(), Some("2029-04-26 12:00:00 UTC"));
        assert_eq!(before(u32::MAX), None, "a retention that reaches before all time takes nothing out");
    }

    #[tokio::test]
    async fn batches_go_until_one_is_not_full_or_there_were_enough_or_somebody_stops() {
        let stop = CancellationToken::new();
        let mut sizes = vec![3, 10, 10];
        let all = in_batches(10, 5, &stop, || std::future::ready(Ok::<_, ()>(sizes.pop().expect("one more")))).await;
        assert_eq!(all, Ok(23));
        assert_eq!(in_batches(10, 2, &stop, || std::future::ready(Ok::<_, ()>(10))).await, Ok(20), "the rest goes the next time");
        let cancelled = in_batches(10, 5, &stop, || {
            stop.cancel();
            std::future::ready(Ok::<_, ()>(10))
        });
        assert_eq!(cancelled.await, Ok(10));
    }
}
