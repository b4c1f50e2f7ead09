//! Sums of meters at Stripe beside what was reported, and what was reported beside what was counted [B-75]. For each customer and meter
//! one request says whether all of it agrees; only where it does not are its hours read.

use std::collections::{BTreeMap, BTreeSet};

use chassis::in_transaction;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::mirrors::Known;
use super::plan::{CLOSE, OLDEST};
use super::remote;
use crate::audit::{self, Change, Decision};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::reconcile::{Difference, Found};
use crate::stripe::transport::Transport;

/// The kind of difference that can be repaired.
pub(crate) const KIND: &str = "meter_sum";
const ACTION: &str = "stripe.repair";
const HOUR: TimeDelta = TimeDelta::hours(1);
/// A sum at Stripe may be so late; what was sent in this time is not made up for.
const SETTLING: TimeDelta = TimeDelta::minutes(15);

/// What we know of an hour of a customer.
#[derive(Debug, Clone, Copy, Default)]
struct Hour {
    sent: i64,
    /// When something of it was last sent, or may have been.
    at: Option<DateTime<Utc>>,
}

/// A customer that something of a meter was reported of.
struct Reported {
    organization: Uuid,
    customer: String,
}

/// The beginning of an instant's hour.
pub(super) fn hour_of(at: DateTime<Utc>) -> Result<DateTime<Utc>, Error> {
    at.duration_trunc(HOUR).map_err(|_| Error::Internal("an hour has no beginning"))
}

/// Compares the last 34 days.
///
/// # Errors
/// Stripe's; the database's.
pub(crate) async fn compare(state: &AppState, stripe: &Transport) -> Result<Vec<Found>, Error> {
    let now = state.clock.now();
    let window = (hour_of(now - OLDEST)?, hour_of(now)?);
    let mut found = ours(state, window).await?;
    let mirrors = sqlx::query_as!(
        Known,
        "select id, event_name, display_name, formula, stripe_id, fault, attempts from stripe_meters
         where ended_at is null or ended_at > $1 order by event_name",
        window.0
    );
    for mirror in mirrors.fetch_all(&state.pool).await? {
        let theirs = remote::find(stripe, &mirror).await?;
        match &theirs {
            Some((meter, None)) => found.extend(sums(state, stripe, &mirror, meter, window).await?),
            // Until the first report is due there need be none.
            None if mirror.stripe_id.is_none() && mirror.fault.is_none() => {}
            _ => found.push(Found {
                kind: "meter_unusable".to_owned(),
                organization: None,
                object: mirror.event_name.clone(),
                ours: mirror.formula.clone(),
                theirs: theirs.and_then(|(_, fault)| fault).unwrap_or_else(|| "no active meter".to_owned()),
                at: None,
            }),
        }
    }
    Ok(found)
}

/// What was counted and is in no report, and what was set aside.
async fn ours(state: &AppState, (from, to): (DateTime<Utc>, DateTime<Utc>)) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"select kind as "kind!", organization as "organization?", object as "object!", ours as "ours!", theirs as "theirs!", at as "at?" from (
             select 'meter_behind' as kind, c.organization_id as organization,
               s.event_name || ' ' || to_char(c.hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as object, c.units::text as ours,
               coalesce(r.planned::text, 'no report') as theirs, c.hour + interval '1 hour' + $3 as at
             from stripe_meter_counts($1, $2) c join stripe_meters s on s.id = c.stripe_meter_id
             cross join lateral (
               select case s.formula when 'sum' then sum(value) filter (where not repair)
                 else (array_agg(value order by version desc))[1] end as planned
               from stripe_meter_reports p where p.stripe_meter_id = s.id and p.organization_id = c.organization_id and p.hour = c.hour) r
             where c.hour + interval '1 hour' + $3 <= $4 and c.units <> coalesce(r.planned, 0)
             union all
             select 'meter_parked', r.organization_id, r.identifier, r.value::text, r.reason, null
             from stripe_meter_reports r where r.state = 'parked') as compared order by object"#,
        from,
        to,
        sqlx::postgres::types::PgInterval { months: 0, days: 0, microseconds: CLOSE.num_microseconds().unwrap_or_default() },
        state.clock.now()
    );
    Ok(rows.fetch_all(&state.pool).await?)
}

async fn sums(
    state: &AppState,
    stripe: &Transport,
    mirror: &Known,
    meter: &str,
    window: (DateTime<Utc>, DateTime<Utc>),
) -> Result<Vec<Found>, Error> {
    let reported = sqlx::query_as!(
        Reported,
        r#"select distinct organization_id as organization, customer_id as "customer!" from stripe_meter_reports
           where stripe_meter_id = $1 and dated >= $2 and dated < $3 and customer_id is not null order by 2"#,
        mirror.id,
        window.0,
        window.1
    );
    let mut found = Vec::new();
    for one in reported.fetch_all(&state.pool).await? {
        let total = match remote::summaries(stripe, meter, &one.customer, window, false).await {
            Ok(sums) => sums.values().next().copied().unwrap_or(0),
            // A customer that is gone there is named for that elsewhere, and has no sums any more.
            Err(Error::Stripe(error)) if matches!(error.status(), Some(400 | 404)) => continue,
            Err(error) => return Err(error),
        };
        // What is sent while Stripe is asked is read after that, and looks young.
        let hours = hours(state, mirror.id, &one.customer, window).await?;
        let sent = match mirror.formula.as_str() {
            "sum" => hours.values().map(|hour| i128::from(hour.sent)).sum(),
            _ => hours.values().last().map_or(0, |hour| i128::from(hour.sent)),
        };
        if i128::from(total) == sent {
            continue;
        }
        let theirs = remote::summaries(stripe, meter, &one.customer, window, true).await?;
        let either: BTreeSet<_> = hours.keys().chain(theirs.keys()).copied().collect();
        for hour in either {
            let (we, they) = (hours.get(&hour).copied().unwrap_or_default(), theirs.get(&hour).copied().unwrap_or(0));
            if we.sent != they {
                found.push(Found {
                    kind: KIND.to_owned(),
                    organization: Some(one.organization),
                    object: format!("{} {}", mirror.event_name, hour.format("%Y-%m-%dT%H:%M:%SZ")),
                    ours: we.sent.to_string(),
                    theirs: they.to_string(),
                    at: we.at,
                });
            }
        }
    }
    Ok(found)
}

/// What Stripe should have of a customer by hour: what was sent, without what made up for losses.
async fn hours(
    state: &AppState,
    mirror: Uuid,
    customer: &str,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<BTreeMap<DateTime<Utc>, Hour>, Error> {
    let rows = sqlx::query!(
        r#"select date_trunc('hour', r.dated, 'UTC') as "hour!",
             case s.formula when 'sum' then coalesce(sum(r.value) filter (where r.state = 'sent' and not r.repair), 0)::bigint
               else coalesce((array_agg(r.value order by r.dated desc) filter (where r.state = 'sent'))[1], 0) end as "sent!",
             max(coalesce(r.sent_at, r.doubt_at)) as at
           from stripe_meter_reports r join stripe_meters s on s.id = r.stripe_meter_id
           where r.stripe_meter_id = $1 and r.customer_id = $2 and r.dated >= $3 and r.dated < $4 group by 1, s.formula"#,
        mirror,
        customer,
        from,
        to
    );
    let rows = rows.fetch_all(&state.pool).await?;
    Ok(rows.into_iter().map(|row| (row.hour, Hour { sent: row.sent, at: row.at })).collect())
}

/// Makes up for what Stripe has lost of an hour, or has too much: by a further report, under a further identifier, that is no more of what
/// was counted. Logged [B-78]; done twice it is done once. False while something of the hour is on its way.
///
/// # Errors
/// 422 when the decision is not one, or its key was used for another command; the database's. Nothing has changed then.
pub(crate) async fn repair(state: &AppState, decision: &Decision, difference: &Difference) -> Result<bool, Error> {
    decision.check()?;
    let parts = (difference.object.rsplit_once(' '), difference.ours.parse::<i64>(), difference.theirs.parse::<i64>());
    let ((Some((event_name, hour)), Ok(ours), Ok(theirs)), Some(organization)) = (parts, difference.organization) else { return Ok(false) };
    let Ok(hour) = hour.parse::<DateTime<Utc>>() else { return Ok(false) };
    let decision = Decision { key: format!("{}-{}-{organization}", decision.key, difference.object), ..decision.clone() };
    let request = json!({"object": difference.object, "difference": difference.kind});
    let missing = ours.checked_sub(theirs).ok_or(Error::Internal("a difference does not fit"))?;
    in_transaction!(state.pool, |transaction| {
        if audit::earlier(transaction, &decision, ACTION, Some(organization), &request).await?.is_some() {
            return Ok(true);
        }
        let now = state.clock.now();
        let identifier = sqlx::query_scalar!(
            "insert into stripe_meter_reports (identifier, stripe_meter_id, organization_id, hour, version, value, repair, dated, next_attempt_at, created_at)
             select stripe_meter_identifier(s.event_name, $2, $3, r.versions + 1), s.id, $2, $3, r.versions + 1,
               case s.formula when 'sum' then $4::bigint else $5::bigint end, true, $3 + least(r.versions + 1, 3599) * interval '1 second', $6::timestamptz, $6::timestamptz
             from stripe_meters s cross join lateral (
               select coalesce(max(version), 0) as versions from stripe_meter_reports p
               where p.stripe_meter_id = s.id and p.organization_id = $2 and p.hour = $3) r
             where s.event_name = $1 and not exists (
               select from stripe_meter_reports p where p.stripe_meter_id = s.id and p.organization_id = $2 and p.hour = $3
                 and (p.state = 'pending' or p.sent_at > $7))
             on conflict do nothing returning identifier",
            event_name,
            organization.uuid(),
            hour,
            missing,
            ours,
            now,
            now - SETTLING
        )
        .fetch_optional(&mut **transaction)
        .await?;
        let Some(identifier) = identifier else { return Ok(false) };
        let (before, after) = (json!({"ours": ours, "theirs": theirs}), json!({"identifier": identifier, "value": missing}));
        let change = Change { action: ACTION, organization: Some(organization), request: &request, before: &before, after: &after };
        audit::record(state, transaction, &decision, &change).await?;
        Ok(true)
    })
}
