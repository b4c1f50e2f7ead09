//! Credit that comes with a period, on its way to the ledger. What a payment brought is posted with the payment (`sales`); what came
//! without one (a coupon took all of the price off) is posted here, as a gift.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::SubscriptionId;
use crate::aside;
use crate::error::Error;
use crate::grants::{self, NewGrant, Source};
use crate::organizations::ensure_wallet;
use crate::state::AppState;

const TASK: &str = "subscription-grants";

/// Posts until the token is cancelled.
pub async fn run_until(state: &AppState, pause: Duration, stop: &CancellationToken) {
    keep_running(TASK, stop, pause, || async {
        while !stop.is_cancelled() && step(state).await? {}
        Ok(())
    })
    .await;
}

/// Posts the one that has waited for longest; false when none does. One that cannot be posted is set aside.
///
/// # Errors
/// The database's, when it cannot be reached.
pub async fn step(state: &AppState) -> Result<bool, Error> {
    let mut row = None;
    let posted = in_transaction!(state.pool, |transaction| { post_next(state, transaction, &mut row).await });
    let (Err(error), Some(row)) = (&posted, row) else { return posted };
    let Some(pause) = aside::pause(TASK, row, error) else { return posted };
    sqlx::query!("update subscription_grants set next_at = $2 where id = $1", row, state.clock.now() + pause).execute(&state.pool).await?;
    Ok(true)
}

/// Posts the next one and tells which it is, also when that fails.
async fn post_next(state: &AppState, transaction: &mut Transaction<'static, Postgres>, row: &mut Option<Uuid>) -> Result<bool, Error> {
    let waiting = sqlx::query!(
        "select id, organization_id, amount_micros, expires_at from subscription_grants
         where posted_at is null and currency = $1 and (next_at is null or next_at <= $2)
         order by created_at limit 1 for update skip locked",
        crate::ledger::CREDIT.code(),
        state.clock.now()
    )
    .fetch_optional(&mut **transaction)
    .await?;
    *row = waiting.as_ref().map(|waiting| waiting.id);
    let Some(waiting) = waiting else { return Ok(false) };
    chassis::step!("plan_credit.found");
    let organization = OrganizationId::from_uuid(waiting.organization_id);
    ensure_wallet(state, transaction, organization).await?;
    let grant = NewGrant { expires_at: waiting.expires_at, ..NewGrant::plain(Source::Plan, waiting.id.to_string(), waiting.amount_micros) };
    grants::issue(state, transaction, organization, &grant).await?;
    chassis::step!("plan_credit.issued");
    mark(state, transaction, waiting.id).await?;
    Ok(true)
}

/// The credit of a charge was posted with its payment.
///
/// # Errors
/// The database's; [`Error::Internal`] when there was none to post.
pub async fn posted(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    subscription: SubscriptionId,
    period_start: DateTime<Utc>,
    reason: &str,
) -> Result<(), Error> {
    let id = sqlx::query_scalar!(
        "select id from subscription_grants where subscription_id = $1 and period_start = $2 and reason = $3 and posted_at is null",
        subscription.uuid(),
        period_start,
        reason
    )
    .fetch_optional(&mut **transaction)
    .await?
    .ok_or(Error::Internal("credit of a charge was posted before its payment"))?;
    mark(state, transaction, id).await
}

async fn mark(state: &AppState, transaction: &mut Transaction<'static, Postgres>, id: Uuid) -> Result<(), Error> {
    sqlx::query!("update subscription_grants set posted_at = $2 where id = $1", id, state.clock.now()).execute(&mut **transaction).await?;
    Ok(())
}
