//! How far the clock of this machine is from that of Postgres. By ours rates are chosen and credit, leases and budgets end: a replica whose
//! clock is ahead ends them early, and nothing else shows it.

use chassis::Clock;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::readings::Reading;
use crate::error::Error;

/// By how much they differ at least, in whole seconds.
///
/// # Errors
/// The database's.
pub async fn difference(pool: &PgPool) -> Result<Vec<Reading>, Error> {
    // Not the state's, which tests turn.
    let ours = Clock::system();
    // Waiting for a connection is no part of the way.
    let mut connection = pool.acquire().await?;
    let asked = ours.now();
    let theirs: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut *connection).await?;
    let apart = apart(theirs, asked, ours.now());
    Ok(Reading::new("billing_clock_difference_seconds", String::new(), apart.num_seconds()).into_iter().collect())
}

/// How far an answer is outside of the time between question and answer: the difference to its middle, less half of the way. So a slow answer is
/// no difference.
fn apart(theirs: DateTime<Utc>, asked: DateTime<Utc>, answered: DateTime<Utc>) -> TimeDelta {
    (asked - theirs).max(theirs - answered).max(TimeDelta::zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_by_what_no_delay_on_the_way_explains() {
        let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
        let of = |theirs| apart(at(theirs), at(20_000), at(30_000)).num_milliseconds();
        assert_eq!([20_000, 25_000, 30_000].map(of), [0; 3], "a slow answer");
        assert_eq!((of(13_000), of(37_500)), (7_000, 7_500), "ours is ahead, and behind");
    }
}
