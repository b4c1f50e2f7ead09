//! The calendar: renews what is over, ends what waited too long. Any number of replicas may look; each row is one's.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use super::{SubscriptionId, store};
use crate::aside;
use crate::error::Error;
use crate::lanes;
use crate::state::AppState;

/// Who changed a subscription, when nobody did.
const ACTOR: &str = "calendar";
const TASK: &str = "subscriptions-due";
/// Subscriptions that are decided at once: on the first of a month many are due.
const LANES: usize = 4;

/// Looks until the token is cancelled.
pub async fn run_until(state: &AppState, pause: Duration, stop: &CancellationToken) {
    keep_running(TASK, stop, pause, || async {
        lanes::drain(LANES, stop, || step(state)).await?;
        Ok(())
    })
    .await;
}

/// Decides the one that has been due for longest; false when none is. One that cannot be decided is set aside.
///
/// # Errors
/// The database's, when it cannot be reached.
pub async fn step(state: &AppState) -> Result<bool, Error> {
    let mut row = None;
    let decided = in_transaction!(state.pool, |transaction| { decide_next(state, transaction, &mut row).await });
    let (Err(error), Some(row)) = (&decided, row) else { return decided };
    let Some(pause) = aside::pause(TASK, row, error) else { return decided };
    let now = state.clock.now();
    // Unless somebody has decided it meanwhile.
    sqlx::query!("update subscriptions set next_action_at = $2 where id = $1 and next_action_at <= $3", row, now + pause, now)
        .execute(&state.pool)
        .await?;
    Ok(true)
}

/// Decides the next one and tells which it is, also when that fails.
async fn decide_next(state: &AppState, transaction: &mut Transaction<'static, Postgres>, row: &mut Option<Uuid>) -> Result<bool, Error> {
    let now = state.clock.now();
    let due = sqlx::query!(
        "select id, organization_id, state from subscriptions where next_action_at <= $1 order by next_action_at, id limit 1
         for no key update skip locked",
        now
    )
    .fetch_optional(&mut **transaction)
    .await?;
    *row = due.as_ref().map(|due| due.id);
    let Some(due) = due else { return Ok(false) };
    chassis::step!("subscription.due");
    let (id, organization) = (SubscriptionId::from_uuid(due.id), OrganizationId::from_uuid(due.organization_id));
    let command = store::due_command(&store::read(due.state)?, now).ok_or(Error::Internal("nothing is to be done about what is due"))?;
    let span = tracing::info_span!(parent: None, "subscription.due", otel.name = "subscription due", subscription.id = %id);
    store::apply(state, transaction, organization, id, &command, ACTOR).instrument(span).await?;
    Ok(true)
}
