//! What was counted and is in no report becomes one: an hour's first report when the hour has ended, and a further one for whatever came
//! late or was corrected. Where hours are added up at Stripe a further one is of the difference, which may be below zero; where the
//! last value stands it is of the whole.

use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{mirrors, stranded};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::turns;

/// How old what is reported may be: a day less than Stripe takes, so that there is time to send it.
pub(super) const OLDEST: TimeDelta = TimeDelta::days(34);
/// After the end of an hour, for what is still being settled. What comes later makes a further report.
pub(super) const CLOSE: TimeDelta = TimeDelta::minutes(10);
/// Between looks at the last hours, and at all.
const RECENT_EVERY: Duration = Duration::from_mins(1);
const ALL_EVERY: Duration = Duration::from_hours(1);
/// So far back are the last hours.
const RECENT: TimeDelta = TimeDelta::hours(6);
/// What one statement counts.
const DAY: TimeDelta = TimeDelta::days(1);

/// From the one on and before the other.
pub(super) type Window = (DateTime<Utc>, DateTime<Utc>);

/// The beginning of an instant's hour.
pub(super) fn hour_of(at: DateTime<Utc>) -> Result<DateTime<Utc>, Error> {
    at.duration_trunc(TimeDelta::hours(1)).map_err(|_| Error::Internal("an hour has no beginning"))
}

/// A time in pieces of a day at most, the latest first: what is of today waits for nothing older.
pub(super) fn days((from, to): Window) -> impl Iterator<Item = Window> {
    let piece = move |end: DateTime<Utc>| (end > from).then(|| ((end - DAY).max(from), end));
    std::iter::successors(piece(to), move |(start, _)| piece(*start))
}

/// A transaction for what takes longer than a request may.
pub(super) async fn unhurried(state: &AppState) -> Result<Transaction<'static, Postgres>, Error> {
    let mut transaction = state.pool.begin().await?;
    sqlx::query!("set local statement_timeout = 0").execute(&mut *transaction).await?;
    Ok(transaction)
}

/// Plans, if it is time to: the last hours every minute and all of them every hour, by one replica.
pub(super) async fn when_due(state: &AppState) -> Result<(), Error> {
    if turns::take(state, "meters-all", ALL_EVERY).await? {
        plan(state, OLDEST).await?;
    } else if turns::take(state, "meters", RECENT_EVERY).await? {
        plan(state, RECENT).await?;
    }
    Ok(())
}

/// Writes the reports that are missing for hours that have ended, as far back as all are. How many.
///
/// # Errors
/// The database's. What can be planned in spite of it is planned.
pub async fn all(state: &AppState) -> Result<u64, Error> {
    plan(state, OLDEST).await
}

/// Each meter and day by itself, so that one that fails keeps back no other.
async fn plan(state: &AppState, back: TimeDelta) -> Result<u64, Error> {
    let now = state.clock.now();
    // Until the hour of an instant that is long enough after the end of the one before.
    let (from, to) = (hour_of(now - back)?, hour_of(now - CLOSE)?);
    let (mut planned, mut failed) = (0, None);
    for mirror in mirrors::kept_since(state, from).await? {
        for day in days(mirror.within((from, to))) {
            match plan_day(state, mirror.id, day).await {
                Ok(more) => planned += more,
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => {
                    tracing::error!(stripe.meter.event_name = mirror.event_name, day = %day.0, error.message = error.chain(),
                        "what was counted could not be made a report; it will be tried again");
                    failed = Some(error);
                }
            }
        }
    }
    stranded::set_aside(&mut *state.pool.acquire().await?, now).await?;
    failed.map_or(Ok(planned), Err)
}

/// One statement, which sees what was counted and what was reported in one picture. Two at once that see the same write the same version
/// of the same hour, and the second one nothing; what only one of them saw is seen again at the next look.
async fn plan_day(state: &AppState, mirror: Uuid, (from, to): Window) -> Result<u64, Error> {
    let mut transaction = unhurried(state).await?;
    let planned = sqlx::query!(
        "insert into stripe_meter_reports (identifier, stripe_meter_id, organization_id, hour, version, value, dated, next_attempt_at, created_at)
         select stripe_meter_identifier(s.event_name, c.organization_id, c.hour, r.versions + 1), s.id, c.organization_id, c.hour, r.versions + 1,
           (c.units - case s.formula when 'sum' then r.total else 0 end)::bigint, c.hour + least(r.versions + 1, 3599) * interval '1 second', $4::timestamptz, $4::timestamptz
         from stripe_meters s cross join stripe_meter_counts($1, $2, $3) c
         cross join lateral (
           select coalesce(max(version), 0) as versions, coalesce(sum(value) filter (where not repair), 0) as total,
             (array_agg(value order by version desc))[1] as latest
           from stripe_meter_reports p where p.stripe_meter_id = s.id and p.organization_id = c.organization_id and p.hour = c.hour) r
         -- What does not fit into a whole number of Stripe's holds up nothing else; reconciliation names it.
         where s.id = $1 and abs(c.units) < 1000000000000000000
           and case s.formula when 'sum' then c.units <> r.total else c.units is distinct from r.latest and (c.units <> 0 or r.versions > 0) end
         on conflict do nothing",
        mirror,
        from,
        to,
        state.clock.now()
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(planned.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_cut_into_days_that_leave_nothing_out_and_overlap_nowhere() {
        let at = |hours: i64| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        assert_eq!(days((at(0), at(50))).collect::<Vec<_>>(), [(at(26), at(50)), (at(2), at(26)), (at(0), at(2))]);
        assert_eq!(days((at(0), at(24))).collect::<Vec<_>>(), [(at(0), at(24))]);
        assert_eq!(days((at(5), at(5))).count() + days((at(6), at(5))).count(), 0);
    }
}
