//! What we want of Stripe, written in the transaction of the state change that wants it [B-67]. Sending is another matter: a worker
//! reads what is unsent, oldest first for each subject, and uses the key that stands here [B-53, B-63].

use chassis::telemetry::current_traceparent;
use identity::OrganizationId;
use serde_json::Value;
use sqlx::{Postgres, Transaction};

use crate::error::Error;
use crate::state::AppState;

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
