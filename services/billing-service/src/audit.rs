//! The log of what operators decided: written in the transaction of the change, never changed afterwards [B-78].

use identity::OrganizationId;
use serde_json::Value;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use chassis::Problem;

use crate::error::Error;
use crate::state::AppState;

/// Who decided, and why.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The person.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// What this run of a command is known by.
    pub request_id: Uuid,
    /// What makes a repetition the same command; [`Decision::request_id`] where the operator named none.
    pub key: String,
}

impl Decision {
    /// A decision; without a key of the operator's each run is a command of its own.
    #[must_use]
    pub fn new(state: &AppState, actor: impl Into<String>, reason: impl Into<String>, key: Option<String>) -> Self {
        let request_id = state.random.uuid_v7(&state.clock);
        Self { actor: actor.into(), reason: reason.into(), request_id, key: key.unwrap_or_else(|| request_id.to_string()) }
    }

    /// Refuses a decision without a name or a reason, before anything is done.
    ///
    /// # Errors
    /// 422.
    pub fn check(&self) -> Result<(), Problem> {
        let empty = |text: &str| text.trim().is_empty();
        match (empty(&self.actor), empty(&self.reason), empty(&self.key)) {
            (true, _, _) => Err(Problem::invalid_field("actor", "must name a person")),
            (_, true, _) => Err(Problem::invalid_field("reason", "must say why")),
            (_, _, true) => Err(Problem::invalid_field("idempotency_key", "must not be empty")),
            _ => Ok(()),
        }
    }
}

/// What is logged of a change.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// The verb, such as `wallet.grant`.
    pub action: &'a str,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What was asked for.
    pub request: &'a Value,
    /// How it was before.
    pub before: &'a Value,
    /// How it is now.
    pub after: &'a Value,
}

/// What an earlier run of the same command led to, if there was one.
///
/// # Errors
/// 422 when the key came with another command; the database's.
pub async fn earlier(
    transaction: &mut Transaction<'static, Postgres>,
    decision: &Decision,
    action: &str,
    organization: OrganizationId,
    request: &Value,
) -> Result<Option<Value>, Error> {
    let row = sqlx::query!("select action, organization_id, request, after from audit_log where idempotency_key = $1", decision.key)
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(row) = row else { return Ok(None) };
    if row.action != action || row.organization_id != Some(organization.uuid()) || row.request != *request {
        return Err(Problem::invalid_field("idempotency_key", "was used with another command").into());
    }
    Ok(Some(row.after))
}

/// Logs a change.
///
/// # Errors
/// The database's.
pub async fn record(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    decision: &Decision,
    change: &Change<'_>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into audit_log (at, actor, action, organization_id, reason, request, before, after, request_id, idempotency_key)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        state.clock.now(),
        decision.actor,
        change.action,
        change.organization.uuid(),
        decision.reason,
        change.request,
        change.before,
        change.after,
        decision.request_id,
        decision.key
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
