//! Sums of meters at Stripe beside what was reported, and what was reported beside what was counted [B-75]. For each customer and meter
//! one request says whether all of it agrees; only where it does not are its hours read. Where the last value stands there is no sum that
//! could say so, and its hours are always read. What cannot be read is a difference of its own and keeps nothing else from being compared,
//! money least of all.

use std::collections::{BTreeMap, BTreeSet};

use chassis::in_transaction;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::look::SETTLING;
use super::mirrors::{self, Known};
use super::plan::{CLOSE, OLDEST, Window, days, hour_of, unhurried};
use super::remote;
use crate::audit::{self, Change, Decision};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::reconcile::{Difference, Found};
use crate::stripe::transport::Transport;

/// The kind of difference that can be repaired.
pub(crate) const KIND: &str = "meter_sum";
const ACTION: &str = "stripe.repair";
/// So far back is looked for what is in no report: what came when Stripe took it no longer is told, and not lost in silence.
const LOOK_BACK: TimeDelta = TimeDelta::days(62);
/// When so many customers of a meter could not be asked for, the others are not asked for either.
const GIVE_UP: usize = 3;

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

/// What could not be compared, and why; nothing if the database is away, which is the end of all comparing.
fn unreadable(object: String, organization: Option<Uuid>, error: Error) -> Result<Found, Error> {
    if error.is_outage() {
        return Err(error);
    }
    Ok(Found { kind: "unreadable".to_owned(), organization, object, ours: String::new(), theirs: error.chain(), at: None })
}

/// Compares the last 34 days, and what was counted for longer.
///
/// # Errors
/// The database's, when it cannot be reached at all.
pub(crate) async fn compare(state: &AppState, stripe: &Transport) -> Result<Vec<Found>, Error> {
    let now = state.clock.now();
    let mut found = parked(state).await?;
    let counted = (hour_of(now - LOOK_BACK)?, hour_of(now - CLOSE)?);
    for mirror in mirrors::kept_since(state, counted.0).await? {
        let mut uncounted = None;
        for day in days(mirror.within(counted)) {
            match behind(state, &mirror, day).await {
                Ok(hours) => found.extend(hours),
                // One is enough to say so, the latest day.
                Err(error) if uncounted.is_none() => {
                    uncounted = Some(unreadable(format!("{} {}", mirror.event_name, day.0.date_naive()), None, error)?);
                }
                Err(_) => {}
            }
        }
        found.extend(uncounted);
        match at_stripe(state, stripe, &mirror, (hour_of(now - OLDEST)?, hour_of(now)?)).await {
            Ok(differences) => found.extend(differences),
            Err(error) => found.push(unreadable(mirror.event_name.clone(), None, error)?),
        }
    }
    Ok(found)
}

/// What was set aside and waits for somebody.
async fn parked(state: &AppState) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"select 'meter_parked' as "kind!", organization_id as "organization?", identifier as object, value::text as "ours!", reason as "theirs!",
             null::timestamptz as at
           from stripe_meter_reports where state = 'parked' and reason not like 'stopped:%' order by identifier"#
    );
    Ok(rows.fetch_all(&state.pool).await?)
}

/// What was counted in a time and is in no report.
async fn behind(state: &AppState, mirror: &Known, (from, to): Window) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"select 'meter_behind' as "kind!", c.organization_id as "organization?",
             $4 || ' ' || to_char(c.hour at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as "object!", c.units::text as "ours!",
             coalesce(r.planned::text, 'no report') as "theirs!", c.hour + interval '1 hour' + $6 as "at?"
           from stripe_meter_counts($1, $2, $3) c cross join lateral (
             select case $5 when 'sum' then sum(value) filter (where not repair)
               else (array_agg(value order by version desc))[1] end as planned
             from stripe_meter_reports p where p.stripe_meter_id = $1 and p.organization_id = c.organization_id and p.hour = c.hour) r
           where c.units <> coalesce(r.planned, 0) order by c.hour"#,
        mirror.id,
        from,
        to,
        mirror.event_name,
        mirror.formula,
        sqlx::postgres::types::PgInterval { months: 0, days: 0, microseconds: CLOSE.num_microseconds().unwrap_or_default() }
    );
    Ok(rows.fetch_all(&mut *unhurried(state).await?).await?)
}

/// What Stripe has of a meter. One that was stopped may be no longer active there; what it has is known by its id.
async fn at_stripe(state: &AppState, stripe: &Transport, mirror: &Known, window: Window) -> Result<Vec<Found>, Error> {
    if mirror.ended_at.is_some() {
        return match &mirror.stripe_id {
            Some(meter) if mirror.ended_at > Some(window.0) => sums(state, stripe, mirror, meter, window).await,
            _ => Ok(Vec::new()),
        };
    }
    let theirs = remote::find(stripe, mirror).await?;
    match &theirs {
        Some((meter, None)) => sums(state, stripe, mirror, meter, window).await,
        // Until the first report is due there need be none.
        None if mirror.stripe_id.is_none() && mirror.fault.is_none() => Ok(Vec::new()),
        _ => Ok(vec![Found {
            kind: "meter_unusable".to_owned(),
            organization: None,
            object: mirror.event_name.clone(),
            ours: mirror.formula.clone(),
            theirs: theirs.and_then(|(_, fault)| fault).unwrap_or_else(|| "no active meter".to_owned()),
            at: None,
        }]),
    }
}

async fn sums(state: &AppState, stripe: &Transport, mirror: &Known, meter: &str, window: Window) -> Result<Vec<Found>, Error> {
    let reported = sqlx::query_as!(
        Reported,
        r#"select distinct organization_id as organization, customer_id as "customer!" from stripe_meter_reports
           where stripe_meter_id = $1 and dated >= $2 and dated < $3 and customer_id is not null order by 2"#,
        mirror.id,
        window.0,
        window.1
    );
    let reported = reported.fetch_all(&mut *unhurried(state).await?).await?;
    let (mut found, mut failed) = (Vec::new(), 0);
    for one in reported {
        match customer(state, stripe, mirror, meter, &one, window).await {
            Ok(differences) => found.extend(differences),
            Err(error) => {
                failed += usize::from(matches!(error, Error::Stripe(_)));
                found.push(unreadable(format!("{} {}", mirror.event_name, one.customer), Some(one.organization), error)?);
                if failed == GIVE_UP {
                    break;
                }
            }
        }
    }
    Ok(found)
}

async fn customer(
    state: &AppState,
    stripe: &Transport,
    mirror: &Known,
    meter: &str,
    one: &Reported,
    window: Window,
) -> Result<Vec<Found>, Error> {
    let adds_up = mirror.formula == "sum";
    // What is sent while Stripe is asked is read after that, and looks young.
    let theirs = match remote::summaries(stripe, meter, &one.customer, window, !adds_up).await {
        Err(Error::Stripe(error)) if error.code() == Some("resource_missing") => None,
        read => Some(read?),
    };
    let hours = hours(state, mirror.id, one, window).await?;
    let sent = hours.values().map(|hour| i128::from(hour.sent)).sum::<i128>();
    let theirs = match theirs {
        // It is gone there, and what was sent for it with it: nothing that a further report could make up for.
        None if sent == 0 => return Ok(Vec::new()),
        None => {
            return Ok(vec![Found {
                kind: KIND.to_owned(),
                organization: Some(one.organization),
                object: format!("{} {}", mirror.event_name, one.customer),
                ours: sent.to_string(),
                theirs: "no such customer".to_owned(),
                at: hours.values().filter_map(|hour| hour.at).max(),
            }]);
        }
        Some(total) if adds_up && total.values().next().map_or(0, |total| i128::from(*total)) == sent => return Ok(Vec::new()),
        Some(_) if adds_up => remote::summaries(stripe, meter, &one.customer, window, true).await?,
        Some(hourly) => hourly,
    };
    let either: BTreeSet<_> = hours.keys().chain(theirs.keys()).copied().collect();
    let differs = |hour: DateTime<Utc>| {
        let (we, they) = (hours.get(&hour).copied().unwrap_or_default(), theirs.get(&hour).copied().unwrap_or(0));
        (we.sent != they).then(|| Found {
            kind: KIND.to_owned(),
            organization: Some(one.organization),
            object: format!("{} {}", mirror.event_name, hour.format("%Y-%m-%dT%H:%M:%SZ")),
            ours: we.sent.to_string(),
            theirs: they.to_string(),
            at: we.at,
        })
    };
    Ok(either.into_iter().filter_map(differs).collect())
}

/// What Stripe should have of a customer by hour: what was sent, without what made up for losses.
async fn hours(state: &AppState, mirror: Uuid, one: &Reported, (from, to): Window) -> Result<BTreeMap<DateTime<Utc>, Hour>, Error> {
    let rows = sqlx::query!(
        r#"select date_trunc('hour', r.dated, 'UTC') as "hour!",
             case s.formula when 'sum' then coalesce(sum(r.value) filter (where r.state = 'sent' and not r.repair), 0)::bigint
               else coalesce((array_agg(r.value order by r.dated desc) filter (where r.state = 'sent'))[1], 0) end as "sent!",
             max(coalesce(r.sent_at, r.doubt_at)) as at
           from stripe_meter_reports r join stripe_meters s on s.id = r.stripe_meter_id
           where r.stripe_meter_id = $1 and r.organization_id = $2 and r.customer_id = $3 and r.dated >= $4 and r.dated < $5 group by 1, s.formula"#,
        mirror,
        one.organization,
        one.customer,
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
