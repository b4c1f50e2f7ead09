//! What was counted and is in no report becomes one: an hour's first report when the hour has ended, and a further one for whatever came
//! late or was corrected. Where hours are added up at Stripe a further one is of the difference, which may be below zero; where the
//! last value stands it is of the whole.

use std::time::Duration;

use chrono::TimeDelta;

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
/// The database's.
pub async fn all(state: &AppState) -> Result<u64, Error> {
    plan(state, OLDEST).await
}

/// One statement, which sees what was counted and what was reported in one picture. Two at once that see the same write the same version
/// of the same hour, and the second one nothing; what only one of them saw is seen again at the next look.
async fn plan(state: &AppState, back: TimeDelta) -> Result<u64, Error> {
    let now = state.clock.now();
    let planned = sqlx::query!(
        "insert into stripe_meter_reports (identifier, stripe_meter_id, organization_id, hour, version, value, dated, next_attempt_at, created_at)
         select stripe_meter_identifier(s.event_name, c.organization_id, c.hour, r.versions + 1), s.id, c.organization_id, c.hour, r.versions + 1,
           (c.units - case s.formula when 'sum' then r.total else 0 end)::bigint, c.hour + least(r.versions + 1, 3599) * interval '1 second', $3::timestamptz, $3::timestamptz
         from stripe_meter_counts(date_trunc('hour', $1::timestamptz, 'UTC'), date_trunc('hour', $2::timestamptz, 'UTC')) c
         join stripe_meters s on s.id = c.stripe_meter_id
         cross join lateral (
           select coalesce(max(version), 0) as versions, coalesce(sum(value) filter (where not repair), 0) as total,
             (array_agg(value order by version desc))[1] as latest
           from stripe_meter_reports p where p.stripe_meter_id = s.id and p.organization_id = c.organization_id and p.hour = c.hour) r
         -- What does not fit into a whole number of Stripe's holds up nothing else; reconciliation names it.
         where abs(c.units) < 1000000000000000000
           and case s.formula when 'sum' then c.units <> r.total else c.units is distinct from r.latest and (c.units <> 0 or r.versions > 0) end
         on conflict do nothing",
        now - back,
        // The hour of an instant that is long enough after the end of the one before.
        now - CLOSE,
        now
    )
    .execute(&state.pool)
    .await?;
    Ok(planned.rows_affected())
}
