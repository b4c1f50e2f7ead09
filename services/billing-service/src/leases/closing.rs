//! The end of a lease: closed in Redis, what is left goes back, the rest when its last requests are over.

use std::future::Future;
use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::{DateTime, TimeDelta, Utc};
use contracts::LeaseId;
use identity::OrganizationId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store;
use crate::aside;
use crate::error::Error;
use crate::lanes;
use crate::state::AppState;

const TASK: &str = "lease-sweeper";
/// Leases that one sweep takes of each kind.
const BATCH: usize = 100;
/// Leases that are worked on at once: each waits for Redis and for the accounts of its organization.
const LANES: usize = 8;
/// After the last deadline of its requests, for their settlements to be posted.
const GRACE: TimeDelta = TimeDelta::minutes(1);

/// Sweeps until the token is cancelled.
pub async fn sweep_until(state: &AppState, every: Duration, stop: &CancellationToken) {
    keep_running(TASK, stop, every, || async {
        while !stop.is_cancelled() && sweep(state).await? {}
        Ok(())
    })
    .await;
}

/// Takes leases that are due one step further, so many of each kind; true when there may be more. One that cannot be taken further is set
/// aside. Any number of replicas may sweep at once: a step that was made is not made again.
///
/// # Errors
/// When the database or Redis is away.
pub async fn sweep(state: &AppState) -> Result<bool, Error> {
    let (now, batch) = (state.clock.now(), i64::try_from(BATCH).unwrap_or(i64::MAX));
    let idle = sqlx::query_scalar!(
        "select id from leases where state in ('opening', 'open') and deadline <= $1 and (next_at is null or next_at <= $1)
         order by deadline limit $2",
        now,
        batch
    );
    let begun = each(state, &["opening", "open"], idle.fetch_all(&state.pool).await?, |id| async move {
        begin(state, LeaseId::from_uuid(id)).await?;
        chassis::step!("lease.ending");
        Ok(())
    })
    .await;
    let closing = sqlx::query_scalar!(
        "select id from leases where state = 'closing' and (next_at is null or next_at <= $1) order by id limit $2",
        now,
        batch
    );
    let closed = each(state, &["closing"], closing.fetch_all(&state.pool).await?, |id| finish(state, id)).await;
    let over = sqlx::query_scalar!(
        "select id from leases where state in ('draining', 'lost') and (held_micros = 0 or drained_at <= $1)
           and (next_at is null or next_at <= $1) order by id limit $2",
        now,
        batch
    );
    let drained = each(state, &["draining", "lost"], over.fetch_all(&state.pool).await?, |id| async move {
        drain(state, LeaseId::from_uuid(id)).await?;
        chassis::step!("lease.drained");
        Ok(())
    })
    .await;
    // Those that need Redis keep none of those that do not.
    Ok(begun? | closed? | drained?)
}

/// Does a step with each of these leases, and sets those aside that it fails with, unless somebody has taken them further meanwhile; true when
/// there were as many as are taken at once.
async fn each<Step>(state: &AppState, states: &[&str], ids: Vec<Uuid>, step: impl Fn(Uuid) -> Step) -> Result<bool, Error>
where
    Step: Future<Output = Result<(), Error>>,
{
    let (full, step) = (ids.len() == BATCH, &step);
    let one = |id| async move {
        let done = step(id).await;
        let Err(error) = &done else { return Ok(()) };
        let Some(pause) = aside::pause(TASK, id, error) else { return done };
        let next_at = state.clock.now() + pause;
        sqlx::query!("update leases set next_at = $2 where id = $1 and state = any($3)", id, next_at, states as &[&str])
            .execute(&state.pool)
            .await?;
        Ok(())
    };
    lanes::each(LANES, ids, one).await?;
    Ok(full)
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

/// Closes those of an organization whose end has begun; whether there were any.
///
/// # Errors
/// When the database or Redis is away.
pub async fn finish_all(state: &AppState, organization: OrganizationId) -> Result<bool, Error> {
    let ending = sqlx::query_scalar!("select id from leases where organization_id = $1 and state = 'closing'", organization.uuid());
    let ending = ending.fetch_all(&state.pool).await?;
    for id in &ending {
        finish(state, *id).await?;
    }
    Ok(!ending.is_empty())
}

/// Closes one whose end has begun, unless somebody has meanwhile.
async fn finish(state: &AppState, id: Uuid) -> Result<(), Error> {
    let found = sqlx::query!("select organization_id, model from leases where id = $1 and state = 'closing'", id);
    let Some(row) = found.fetch_optional(&state.pool).await? else { return Ok(()) };
    close(state, OrganizationId::from_uuid(row.organization_id), row.model.as_deref(), LeaseId::from_uuid(id)).await
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

/// No request of it can be in flight any more: it holds nothing from now on.
///
/// # Errors
/// The database's.
pub async fn drain(state: &AppState, id: LeaseId) -> Result<(), Error> {
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
