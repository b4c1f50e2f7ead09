//! The end of a lease: closed in Redis, what is left goes back, the rest when its last requests are over.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::{DateTime, TimeDelta, Utc};
use contracts::LeaseId;
use identity::OrganizationId;
use tokio_util::sync::CancellationToken;

use super::store;
use crate::error::Error;
use crate::state::AppState;

const BATCH: i64 = 100;
/// After the last deadline of its requests, for their settlements to be posted.
const GRACE: TimeDelta = TimeDelta::minutes(1);

/// Sweeps until the token is cancelled.
pub async fn sweep_until(state: &AppState, every: Duration, stop: &CancellationToken) {
    keep_running("lease-sweeper", stop, every, || async { Ok(sweep(state).await?) }).await;
}

/// Takes each lease that is due one step further. Any number of replicas may sweep at once: a step that was made is not made again.
///
/// # Errors
/// When the database or Redis is away.
pub async fn sweep(state: &AppState) -> Result<(), Error> {
    let now = state.clock.now();
    let idle = sqlx::query_scalar!(
        "select id from leases where state in ('opening', 'open') and deadline <= $1 order by deadline limit $2",
        now,
        BATCH
    )
    .fetch_all(&state.pool)
    .await?;
    for id in idle.into_iter().map(LeaseId::from_uuid) {
        begin(state, id).await?;
        chassis::step!("lease.ending");
    }
    let closing = sqlx::query!("select id, organization_id, model from leases where state = 'closing' order by id limit $1", BATCH)
        .fetch_all(&state.pool)
        .await?;
    for row in closing {
        close(state, OrganizationId::from_uuid(row.organization_id), row.model.as_deref(), LeaseId::from_uuid(row.id)).await?;
    }
    let drained = sqlx::query_scalar!(
        "select id from leases where state in ('draining', 'lost') and (held_micros = 0 or drained_at <= $1) order by id limit $2",
        now,
        BATCH
    )
    .fetch_all(&state.pool)
    .await?;
    for id in drained.into_iter().map(LeaseId::from_uuid) {
        drain(state, id).await?;
        chassis::step!("lease.drained");
    }
    Ok(())
}

/// Nothing is put into it from now on.
async fn begin(state: &AppState, id: LeaseId) -> Result<(), Error> {
    in_transaction!(state.pool, |transaction| {
        let Some((lease, _)) = store::find(transaction, id).await? else { return Ok(()) };
        // It may have been filled since it was read.
        if matches!(lease.state.as_str(), "opening" | "open") && lease.deadline <= state.clock.now() {
            store::closing(transaction, id).await?;
        }
        Ok(())
    })
}

/// Closes it in Redis and gives back what is left there.
///
/// # Errors
/// When the database or Redis is away.
pub async fn close(state: &AppState, organization: OrganizationId, model: Option<&str>, id: LeaseId) -> Result<(), Error> {
    let closed = state.admissions.close(organization, model, id).await?;
    chassis::step!("lease.closed_in_redis");
    let known = closed.remaining_micros.is_some();
    let next = if known { ("draining", instant(closed.last_deadline_ms) + GRACE) } else { ("lost", horizon(state)) };
    give_back(state, id, &["closing"], closed.remaining_micros.unwrap_or(0), next).await?;
    chassis::step!("lease.given_back");
    state.admissions.forget(organization, model, id).await?;
    chassis::step!("lease.forgotten");
    Ok(())
}

/// Redis does not have it any more. What its requests took will be told by themselves; the rest comes back when they must be over.
///
/// # Errors
/// The database's.
pub async fn lost(state: &AppState, id: LeaseId) -> Result<(), Error> {
    metrics::counter!("billing_leases_lost_total").increment(1);
    tracing::warn!(lease.id = %id, "Redis has lost a lease: what is left of it comes back when its requests must be over");
    give_back(state, id, &["opening", "open"], 0, ("lost", horizon(state))).await
}

/// No request of it can be in flight any more.
async fn drain(state: &AppState, id: LeaseId) -> Result<(), Error> {
    give_back(state, id, &["draining", "lost"], i64::MAX, ("closed", state.clock.now())).await
}

/// One step, unless somebody else has made it.
async fn give_back(state: &AppState, id: LeaseId, from: &[&str], amount: i64, next: (&str, DateTime<Utc>)) -> Result<(), Error> {
    in_transaction!(state.pool, |transaction| {
        if let Some((lease, balances)) = store::find(transaction, id).await?
            && from.contains(&lease.state.as_str())
        {
            store::give_back(state, transaction, (&lease, balances), amount, next).await?;
        }
        Ok(())
    })
}

fn horizon(state: &AppState) -> DateTime<Utc> {
    state.clock.now() + TimeDelta::from_std(state.config.lease.drain.0).unwrap_or(TimeDelta::MAX)
}

fn instant(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(milliseconds).unwrap_or(DateTime::UNIX_EPOCH)
}
