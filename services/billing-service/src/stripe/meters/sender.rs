//! Sends reports, each by itself: one that Stripe does not want is set aside with the reason and one that failed comes again after a
//! pause, while the others go on [B-66, B-67]. That Stripe has an identifier already is what was wanted.

use std::time::Duration;

use chassis::postgres::keep_running;
use chrono::{DateTime, TimeDelta, Utc};
use identity::OrganizationId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::look::{SETTLING, Seen, look};
use super::{plan, remote};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::call::Call;
use crate::stripe::transport::{Transport, TransportError};
use crate::stripe::{backoff, customers};

const POLL: Duration = Duration::from_secs(1);
/// Stripe takes nothing older than 35 days; an hour less, for what differs between two clocks.
pub(super) const TOO_OLD: TimeDelta = TimeDelta::hours(35 * 24 - 1);
/// Stripe knows an identifier for at least a day. A try that is older may have had its effect, and the identifier tells nothing of it.
pub(super) const REMEMBERED: TimeDelta = TimeDelta::hours(23);
const UNCLEAR: &str = "unclear: a try may have had its effect more than a day ago, and the sums do not tell";

/// A report that is to be sent now.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) identifier: String,
    pub(super) mirror: Uuid,
    event_name: String,
    pub(super) formula: String,
    pub(super) meter: String,
    pub(super) organization: OrganizationId,
    hour: DateTime<Utc>,
    pub(super) dated: DateTime<Utc>,
    pub(super) value: i64,
    pub(super) repair: bool,
    customer: Option<String>,
    attempts: i32,
    /// The first try whose end is not known; this one, if there was none before. Of an hour whose identifiers Stripe has forgotten none,
    /// before the sums were looked at: the database may have been restored from a time before it was sent.
    doubt_at: Option<DateTime<Utc>>,
    pub(super) claimed_at: DateTime<Utc>,
}

impl Due {
    /// Whether an earlier try may have had its effect.
    fn in_doubt(&self) -> bool {
        self.doubt_at.is_some_and(|at| at < self.claimed_at)
    }

    fn is_too_old(&self) -> bool {
        self.dated < self.claimed_at - TOO_OLD
    }

    /// Whether its identifier does not tell if Stripe has it.
    fn must_be_looked_for(&self) -> bool {
        match self.doubt_at {
            None => !self.is_too_old(),
            Some(at) => self.in_doubt() && (self.is_too_old() || at < self.claimed_at - REMEMBERED),
        }
    }
}

/// How a try ended.
#[derive(Debug)]
enum End {
    /// Stripe has it.
    Sent,
    /// Stripe had it.
    AlreadyThere,
    /// It is set aside: why.
    Parked(String),
    /// It comes again when the sums at Stripe have settled.
    Later,
}

/// What a look for a report that is to be sent comes to.
#[derive(Debug)]
enum Claimed {
    /// This one is ours.
    Due(Box<Due>),
    /// Another replica takes one of the same organization and meter at this moment.
    Busy,
    /// None is due.
    None,
}

/// Plans and sends until the token is cancelled; without a key nothing is ever sent.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let Some(stripe) = &state.stripe else { return stop.cancelled().await };
    keep_running("stripe-meters", stop, POLL, || async {
        // What could not be planned keeps nothing back that was.
        let planned = plan::when_due(state).await;
        remote::prepare(state, stripe).await?;
        while !stop.is_cancelled() && step(state, stripe).await? {}
        Ok(planned?)
    })
    .await;
}

/// Tries the next report that is due; false when none is, or when Stripe cannot be reached.
///
/// # Errors
/// The database's.
pub async fn step(state: &AppState, stripe: &Transport) -> Result<bool, Error> {
    let mut due = match claim(state).await? {
        Claimed::Due(due) => due,
        Claimed::Busy => return Ok(true),
        Claimed::None => return Ok(false),
    };
    chassis::step!("meter_report.claimed");
    match perform(state, stripe, &mut due).await {
        Ok(end) => {
            chassis::step!("meter_report.performed");
            finish(state, &due, end).await?;
            chassis::step!("meter_report.marked");
        }
        Err(error) if error.is_outage() => return Err(error),
        Err(error) => {
            postpone(state, &due, &error).await?;
            return Ok(!matches!(error, Error::Stripe(TransportError::Unreachable(_) | TransportError::Late)));
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

/// Of an organization and meter one at a time: Stripe would refuse the second [B-67]. Who claims holds a lock of the two until that can be
/// seen, and looks once more when it has it. The try is noted before it is made, as one whose end is not known.
async fn claim(state: &AppState) -> Result<Claimed, Error> {
    let now = state.clock.now();
    let mut transaction = state.pool.begin().await?;
    // By meter: what waits for one that cannot be had is not even read.
    let first = sqlx::query!(
        r#"select p.identifier, pg_try_advisory_xact_lock(hashtextextended('stripe_meter_reports ' || m.id || p.organization_id, 0)) as "locked!"
           from stripe_meters m cross join lateral (
             select identifier, organization_id, next_attempt_at from stripe_meter_reports r
             where r.stripe_meter_id = m.id and r.state = 'pending' and r.next_attempt_at <= $1 and not exists (
               select from stripe_meter_reports o where o.stripe_meter_id = r.stripe_meter_id and o.organization_id = r.organization_id
                 and o.claimed_until > $1)
             order by r.next_attempt_at, r.identifier limit 1 for update skip locked) p
           where m.stripe_id is not null order by p.next_attempt_at, p.identifier limit 1"#,
        now
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(first) = first else { return Ok(Claimed::None) };
    if !first.locked {
        return Ok(Claimed::Busy);
    }
    let row = sqlx::query!(
        r#"update stripe_meter_reports r set attempts = r.attempts + 1, next_attempt_at = $1 + interval '1 minute', claimed_until = $1 + interval '1 minute',
             doubt_at = coalesce(r.doubt_at, case when r.dated >= $3 then $1 end)
           from stripe_meters s where s.id = r.stripe_meter_id and r.identifier = $2 and s.stripe_id is not null and not exists (
             select from stripe_meter_reports o where o.stripe_meter_id = r.stripe_meter_id and o.organization_id = r.organization_id
               and o.claimed_until > $1)
           returning r.identifier, r.stripe_meter_id, s.event_name, s.formula, s.stripe_id as "meter!", r.organization_id, r.hour, r.dated, r.value,
             r.repair, r.customer_id, r.attempts, r.doubt_at, r.next_attempt_at - interval '1 minute' as "claimed_at!""#,
        now,
        first.identifier,
        now - REMEMBERED
    )
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let Some(row) = row else { return Ok(Claimed::Busy) };
    Ok(Claimed::Due(Box::new(Due {
        identifier: row.identifier,
        mirror: row.stripe_meter_id,
        event_name: row.event_name,
        formula: row.formula,
        meter: row.meter,
        organization: OrganizationId::from_uuid(row.organization_id),
        hour: row.hour,
        dated: row.dated,
        value: row.value,
        repair: row.repair,
        customer: row.customer_id,
        attempts: row.attempts,
        doubt_at: row.doubt_at,
        claimed_at: row.claimed_at,
    })))
}

async fn perform(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<End, Error> {
    if due.must_be_looked_for() {
        match seen(state, stripe, due).await? {
            Seen::There => return Ok(End::AlreadyThere),
            Seen::NotThere => renew(state, due).await?,
            Seen::TooEarly => return Ok(End::Later),
            Seen::Unclear => return Ok(End::Parked(UNCLEAR.to_owned())),
        }
    }
    if due.is_too_old() {
        return Ok(End::Parked("too_old: Stripe takes nothing that is older than 35 days".to_owned()));
    }
    let customer = customer(state, stripe, due).await?;
    let mut sent = send(stripe, due, &customer, "").await;
    if sent.as_ref().is_err_and(names_customer) && customers::replace_if_gone(state, stripe, due.organization, &customer).await? {
        due.customer = None;
        let customer = self::customer(state, stripe, due).await?;
        sent = send(stripe, due, &customer, "-again").await;
    }
    match sent {
        Ok(()) => Ok(End::Sent),
        Err(error) if error.is_duplicate_event() => Ok(End::AlreadyThere),
        Err(error) => refused(state, due, error).await,
    }
}

/// What a look says; of a try before which there was no customer, that it had no effect. Sums that Stripe does not tell, because the
/// customer is gone, say nothing, and nor do those of what becomes too old meanwhile.
async fn seen(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<Seen, Error> {
    if due.in_doubt() && due.customer.is_none() {
        return Ok(Seen::NotThere);
    }
    let customer = customer(state, stripe, due).await?;
    match look(state, stripe, due, &customer).await {
        Err(Error::Stripe(error))
            if due.in_doubt() && (matches!(error.status(), Some(400 | 404)) || due.is_too_old() && error.is_final()) =>
        {
            Ok(Seen::Unclear)
        }
        // Of a first try: whether the customer is gone is seen when it is sent.
        Err(Error::Stripe(error)) if !due.in_doubt() && matches!(error.status(), Some(400 | 404)) => Ok(Seen::NotThere),
        looked => looked,
    }
}

async fn send(stripe: &Transport, due: &Due, customer: &str, again: &str) -> Result<(), TransportError> {
    // A key for each try: the identifier makes it one event, and a key would play a failure back for a day [B-65].
    let call = Call::post("/billing/meter_events", format!("{}-{}{again}", due.identifier, due.attempts))
        .with("event_name", &due.event_name)
        .with("identifier", &due.identifier)
        .with("timestamp", due.dated.timestamp())
        .with("payload[stripe_customer_id]", customer)
        .with("payload[value]", due.value);
    stripe.ask(&call).await.map(|_| ())
}

/// Whether a refusal says that there is no such customer.
fn names_customer(error: &TransportError) -> bool {
    matches!(error, TransportError::Refused { code, param: Some(param), .. } if code == "resource_missing" && param.contains("stripe_customer_id"))
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
        _ if names_customer(&error) => "customer_gone: Stripe takes nothing for the customer".to_owned(),
        ("timestamp_invalid", _) | (_, "timestamp") => "too_old: Stripe does not take its time".to_owned(),
        (code, param) => format!("{code} {param}").trim_end().to_owned(),
    };
    Ok(End::Parked(reason))
}

/// The customer that it was first sent for, or else the organization's.
async fn customer(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<String, Error> {
    if let Some(customer) = &due.customer {
        return Ok(customer.clone());
    }
    let customer = customers::ensure(state, stripe, due.organization).await?;
    sqlx::query!("update stripe_meter_reports set customer_id = $2 where identifier = $1", due.identifier, customer)
        .execute(&state.pool)
        .await?;
    due.customer = Some(customer.clone());
    Ok(customer)
}

/// It was not there: this try is the first one again.
async fn renew(state: &AppState, due: &mut Due) -> Result<(), Error> {
    due.doubt_at = Some(due.claimed_at);
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
        End::Later => {
            let settled = state.clock.now() + SETTLING;
            sqlx::query!(
                "update stripe_meter_reports set next_attempt_at = $2, claimed_until = null where identifier = $1",
                due.identifier,
                settled
            )
            .execute(&state.pool)
            .await?;
            return Ok(());
        }
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
