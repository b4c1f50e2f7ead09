//! Sends reports, each by itself: one that Stripe does not want is set aside with the reason and one that failed comes again after a
//! pause, while the others go on [B-66, B-67]. That Stripe has an identifier already is what was wanted.

use std::time::Duration;

use chassis::postgres::keep_running;
use chrono::{DateTime, TimeDelta, Utc};
use identity::OrganizationId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{plan, remote};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::call::Call;
use crate::stripe::transport::{Transport, TransportError};
use crate::stripe::{backoff, customers};

const POLL: Duration = Duration::from_secs(1);
/// Stripe takes nothing older than 35 days; an hour less, for what differs between two clocks.
const TOO_OLD: TimeDelta = TimeDelta::hours(35 * 24 - 1);
/// Stripe knows an identifier for at least a day. A try that is older may have had its effect, and the identifier tells nothing of it.
const REMEMBERED: TimeDelta = TimeDelta::hours(23);

/// A report that is to be sent now.
#[derive(Debug)]
struct Due {
    identifier: String,
    mirror: Uuid,
    event_name: String,
    formula: String,
    meter: String,
    organization: OrganizationId,
    hour: DateTime<Utc>,
    dated: DateTime<Utc>,
    value: i64,
    customer: Option<String>,
    attempts: i32,
    /// The first try whose end is not known; this one, if there was none before.
    doubt_at: DateTime<Utc>,
    claimed_at: DateTime<Utc>,
}

impl Due {
    /// Whether an earlier try may have had its effect.
    fn in_doubt(&self) -> bool {
        self.doubt_at < self.claimed_at
    }
}

/// How a try ended that is the last one.
#[derive(Debug)]
enum End {
    /// Stripe has it.
    Sent,
    /// Stripe had it.
    AlreadyThere,
    /// It is set aside: why.
    Parked(String),
}

/// Plans and sends until the token is cancelled; without a key nothing is ever sent.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let Some(stripe) = &state.stripe else { return stop.cancelled().await };
    keep_running("stripe-meters", stop, POLL, || async {
        plan::when_due(state).await?;
        remote::prepare(state, stripe).await?;
        while !stop.is_cancelled() && step(state, stripe).await? {}
        Ok(())
    })
    .await;
}

/// Tries the next report that is due; false when none is, or when Stripe cannot be reached.
///
/// # Errors
/// The database's.
pub async fn step(state: &AppState, stripe: &Transport) -> Result<bool, Error> {
    let Some(mut due) = claim(state).await? else { return Ok(false) };
    match perform(state, stripe, &mut due).await {
        Ok(end) => finish(state, &due, end).await?,
        Err(error) if error.is_outage() => return Err(error),
        Err(error) => {
            postpone(state, &due, &error).await?;
            return Ok(!matches!(error, Error::Stripe(TransportError::Unreachable(_))));
        }
    }
    Ok(true)
}

/// Sees to the meters at Stripe, and sends all that is due.
///
/// # Errors
/// The database's; Stripe's.
pub async fn flush(state: &AppState, stripe: &Transport) -> Result<(), Error> {
    remote::prepare(state, stripe).await?;
    while step(state, stripe).await? {}
    Ok(())
}

/// Of an organization and meter one at a time: Stripe would refuse the second [B-67]. The try is noted before it is made, as one whose
/// end is not known.
async fn claim(state: &AppState) -> Result<Option<Due>, Error> {
    let now = state.clock.now();
    let row = sqlx::query!(
        r#"update stripe_meter_reports r set attempts = r.attempts + 1, next_attempt_at = $1 + interval '1 minute', claimed_until = $1 + interval '1 minute',
             doubt_at = coalesce(r.doubt_at, $1)
           from stripe_meters s where s.id = r.stripe_meter_id and r.identifier = (
             select identifier from stripe_meter_reports p join stripe_meters m on m.id = p.stripe_meter_id
             where p.state = 'pending' and p.next_attempt_at <= $1 and m.stripe_id is not null and not exists (
               select from stripe_meter_reports o where o.stripe_meter_id = p.stripe_meter_id and o.organization_id = p.organization_id
                 and o.claimed_until > $1)
             order by p.next_attempt_at, p.identifier limit 1 for update of p skip locked)
           returning r.identifier, r.stripe_meter_id, s.event_name, s.formula, s.stripe_id as "meter!", r.organization_id, r.hour, r.dated, r.value,
             r.customer_id, r.attempts, r.doubt_at as "doubt_at!", r.next_attempt_at - interval '1 minute' as "claimed_at!""#,
        now
    )
    .fetch_optional(&state.pool)
    .await?;
    Ok(row.map(|row| Due {
        identifier: row.identifier,
        mirror: row.stripe_meter_id,
        event_name: row.event_name,
        formula: row.formula,
        meter: row.meter,
        organization: OrganizationId::from_uuid(row.organization_id),
        hour: row.hour,
        dated: row.dated,
        value: row.value,
        customer: row.customer_id,
        attempts: row.attempts,
        doubt_at: row.doubt_at,
        claimed_at: row.claimed_at,
    }))
}

async fn perform(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<End, Error> {
    let too_old = due.dated < due.claimed_at - TOO_OLD;
    if due.in_doubt() && (too_old || due.doubt_at < due.claimed_at - REMEMBERED) {
        match look(state, stripe, due).await? {
            Some(true) => return Ok(End::AlreadyThere),
            Some(false) => renew(state, due).await?,
            None => {
                return Ok(End::Parked("unclear: a try may have had its effect more than a day ago, and the sums do not tell".to_owned()));
            }
        }
    }
    if too_old {
        return Ok(End::Parked("too_old: Stripe takes nothing that is older than 35 days".to_owned()));
    }
    let customer = customer(state, stripe, due).await?;
    // A key for each try: the identifier makes it one event, and a key would play a failure back for a day [B-65].
    let call = Call::post("/billing/meter_events", format!("{}-{}", due.identifier, due.attempts))
        .with("event_name", &due.event_name)
        .with("identifier", &due.identifier)
        .with("timestamp", due.dated.timestamp())
        .with("payload[stripe_customer_id]", &customer)
        .with("payload[value]", due.value);
    match stripe.ask(&call).await {
        Ok(_) => Ok(End::Sent),
        Err(error) if error.is_duplicate_event() => Ok(End::AlreadyThere),
        Err(error) => refused(state, due, error).await,
    }
}

/// A refusal of this event alone sets it aside; one of its meter or of us is no fault of the event.
async fn refused(state: &AppState, due: &Due, error: TransportError) -> Result<End, Error> {
    let TransportError::Refused { status: 400 | 404 | 422, code, param, should_retry, .. } = &error else { return Err(error.into()) };
    let param = param.as_deref().unwrap_or_default();
    if *should_retry == Some(true) {
        return Err(error.into());
    }
    if param == "event_name" || code.contains("no_meter") {
        // It is looked for, and made if need be, before anything is sent to it again.
        sqlx::query!("update stripe_meters set stripe_id = null, next_attempt_at = $2 where id = $1", due.mirror, state.clock.now())
            .execute(&state.pool)
            .await?;
        return Err(error.into());
    }
    let reason = match (code.as_str(), param) {
        ("resource_missing", param) if param.contains("stripe_customer_id") => "customer_gone: Stripe has no such customer".to_owned(),
        ("timestamp_invalid", _) | (_, "timestamp") => "too_old: Stripe does not take its time".to_owned(),
        (code, param) => format!("{code} {param}").trim_end().to_owned(),
    };
    Ok(End::Parked(reason))
}

/// The customer that it was first sent for, or else the organization's.
async fn customer(state: &AppState, stripe: &Transport, due: &Due) -> Result<String, Error> {
    if let Some(customer) = &due.customer {
        return Ok(customer.clone());
    }
    let customer = customers::ensure(state, stripe, due.organization).await?;
    sqlx::query!("update stripe_meter_reports set customer_id = $2 where identifier = $1", due.identifier, customer)
        .execute(&state.pool)
        .await?;
    Ok(customer)
}

/// Whether Stripe has it, by the sum of its hour there beside what is known to be in it; none when that fits neither.
async fn look(state: &AppState, stripe: &Transport, due: &Due) -> Result<Option<bool>, Error> {
    let Some(customer) = &due.customer else { return Ok(Some(false)) };
    let hour = super::compare::hour_of(due.dated)?;
    let known = sqlx::query_scalar!(
        r#"select case $4 when 'sum' then coalesce(sum(value), 0)::bigint else coalesce((array_agg(value order by dated desc))[1], 0) end as "known!"
           from stripe_meter_reports where stripe_meter_id = $1 and customer_id = $2 and state = 'sent' and dated >= $3 and dated < $3 + interval '1 hour'"#,
        due.mirror,
        customer,
        hour,
        due.formula
    )
    .fetch_one(&state.pool)
    .await?;
    let there = remote::of_hour(stripe, &due.meter, customer, hour).await?;
    let with_it = if due.formula == "sum" { known.saturating_add(due.value) } else { due.value };
    Ok(match there {
        there if there == with_it => Some(true),
        there if there == known => Some(false),
        // Sending the last value again changes nothing.
        _ if due.formula == "last" => Some(false),
        _ => None,
    })
}

/// It was not there: this try is the first one again.
async fn renew(state: &AppState, due: &mut Due) -> Result<(), Error> {
    due.doubt_at = due.claimed_at;
    sqlx::query!("update stripe_meter_reports set doubt_at = $2 where identifier = $1", due.identifier, due.claimed_at)
        .execute(&state.pool)
        .await?;
    Ok(())
}

async fn finish(state: &AppState, due: &Due, end: End) -> Result<(), Error> {
    let (result, to, reason) = match end {
        End::Sent => ("sent", "sent", None),
        End::AlreadyThere => ("already_there", "sent", None),
        End::Parked(reason) => ("parked", "parked", Some(reason)),
    };
    if let Some(reason) = &reason {
        tracing::error!(stripe.meter.identifier = due.identifier, stripe.meter.event_name = due.event_name, organization.id = %due.organization,
            hour = %due.hour, reason, "a report of usage was set aside");
    }
    sqlx::query!(
        "update stripe_meter_reports set state = $2, reason = $3, sent_at = case $2 when 'sent' then $4::timestamptz end, claimed_until = null
         where identifier = $1",
        due.identifier,
        to,
        reason,
        state.clock.now()
    )
    .execute(&state.pool)
    .await?;
    metrics::counter!("billing_stripe_meter_reports_total", "result" => result).increment(1);
    Ok(())
}

/// Comes again after a pause. What Stripe has refused had no effect; of what it did not answer, or with an error of its own, that is not known.
async fn postpone(state: &AppState, due: &Due, error: &Error) -> Result<(), Error> {
    tracing::warn!(
        stripe.meter.identifier = due.identifier,
        attempts = due.attempts,
        error.message = error.chain(),
        "a report of usage did not arrive; it will be tried again"
    );
    metrics::counter!("billing_stripe_meter_reports_total", "result" => "failed").increment(1);
    let stripe = match error {
        Error::Stripe(error) => Some(error),
        _ => None,
    };
    let next =
        stripe.map_or_else(|| backoff::next(state, backoff::seconds(due.attempts)), |error| backoff::after(state, due.attempts, error));
    let without_effect = !due.in_doubt() && stripe.and_then(TransportError::status).is_some_and(|status| status < 500);
    sqlx::query!(
        "update stripe_meter_reports set next_attempt_at = $2, claimed_until = null, doubt_at = case when $3 then null else doubt_at end where identifier = $1",
        due.identifier,
        next,
        without_effect
    )
    .execute(&state.pool)
    .await?;
    Ok(())
}
