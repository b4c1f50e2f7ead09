//! What we want of Stripe, written in the transaction of the state change that wants it [B-67]. Sending is another matter: a worker
//! reads what is unsent, oldest first for each subject, and uses the key that stands here [B-53, B-63]. What Stripe refused for a day is set
//! aside, and comes back when an operator says so, or a customer has changed something.

use chassis::telemetry::current_traceparent;
use chrono::{DateTime, TimeDelta, Utc};
use identity::OrganizationId;
use serde_json::Value;
use sqlx::{PgExecutor, Postgres, Transaction};
use uuid::Uuid;

use crate::error::Error;
use crate::state::AppState;

/// Longer than a try takes: until then nobody else makes one.
pub const TRY: TimeDelta = TimeDelta::minutes(1);

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// What is to be done, such as `catalog.plan` or `subscription.charge`.
    pub kind: &'static str,
    /// What it is about; wishes about one thing are sent in order.
    pub subject: String,
    /// Whose it is, if it is a customer's.
    pub organization_id: Option<OrganizationId>,
    /// The logical operation, the same however often it is tried.
    pub idempotency_key: String,
    /// What to send.
    pub payload: Value,
}

/// Writes a wish; a second one for the same operation is none.
///
/// # Errors
/// The database's.
pub async fn want(state: &AppState, transaction: &mut Transaction<'static, Postgres>, intent: &Intent) -> Result<(), Error> {
    sqlx::query!(
        "insert into intents (id, kind, subject, organization_id, idempotency_key, payload, next_attempt_at, created_at, traceparent)
         values ($1, $2, $3, $4, $5, $6, $7, $7, $8) on conflict on constraint intents_idempotency_key_key do nothing",
        state.random.uuid_v7(&state.clock),
        intent.kind,
        intent.subject,
        intent.organization_id.map(OrganizationId::uuid),
        intent.idempotency_key,
        intent.payload,
        state.clock.now(),
        current_traceparent()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// A wish that is none any more: it is not sent, and nobody brings it back. Until when a try that was begun before may be under way; none when
/// it was sent, or never tried.
///
/// # Errors
/// The database's.
pub async fn forgo(state: &AppState, executor: impl PgExecutor<'_>, operation: &str) -> Result<Option<DateTime<Utc>>, Error> {
    let now = state.clock.now();
    let forgone = sqlx::query!(
        "update intents set sent_at = $2 where idempotency_key = $1 and sent_at is null returning attempts, next_attempt_at",
        operation,
        now
    );
    let forgone = forgone.fetch_optional(executor).await?.filter(|forgone| forgone.attempts > 0);
    // What has ended already waits for its next try, which is later than that.
    Ok(forgone.map(|forgone| forgone.next_attempt_at.min(now + TRY)).filter(|until| *until > now))
}

/// Has a wish wait.
///
/// # Errors
/// The database's.
pub async fn wait(transaction: &mut Transaction<'static, Postgres>, operation: &str, until: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!("update intents set next_attempt_at = greatest(next_attempt_at, $2) where idempotency_key = $1", operation, until)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Puts wishes back that were set aside, with all their tries: one, or those that were set aside within a time (half-open). Their ids.
///
/// # Errors
/// The database's.
pub async fn bring_back(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    id: Option<Uuid>,
    (from, to): (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
) -> Result<Vec<Uuid>, Error> {
    let back = sqlx::query_scalar!(
        "update intents set parked_at = null, refusals = 0, next_attempt_at = $4
         where id = any (array(select id from intents where parked_at is not null and sent_at is null and ($1::uuid is null or id = $1)
           and ($2::timestamptz is null or parked_at >= $2) and ($3::timestamptz is null or parked_at < $3) order by id for no key update)) returning id",
        id,
        from,
        to,
        state.clock.now()
    );
    Ok(back.fetch_all(&mut **transaction).await?)
}

/// The customer has changed something at Stripe, such as its address: what it is to be charged, and what was set aside since Stripe could not
/// collect it so, is tried once more. Not before its pause is over: what is changed may be an effect of the try itself.
///
/// # Errors
/// The database's.
pub async fn try_charges_again(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId) -> Result<(), Error> {
    sqlx::query!(
        "update intents set parked_at = null
         where id = any (array(select id from intents where organization_id = $1 and parked_at is not null and sent_at is null
           and kind in ('subscription.charge', 'top_up.charge') order by id for no key update))",
        organization.uuid()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
