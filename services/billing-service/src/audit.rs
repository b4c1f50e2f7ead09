//! The log of what operators decided: written in the transaction of the change, never changed afterwards [B-78].

use chassis::Problem;
use chassis::postgres::constraint;
use chrono::{DateTime, Utc};
use identity::{OrganizationId, Principal};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

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

    /// What a customer decides by an API call: the call itself is the reason.
    #[must_use]
    pub fn of_caller(state: &AppState, caller: &Principal, route: &str) -> Self {
        let key = caller.api_key_id().map(|key| key.to_string());
        let actor = key.or_else(|| caller.user_id().map(|user| user.to_string())).unwrap_or_default();
        Self::new(state, actor, route, None)
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
    /// Whose it is; none where it concerns everybody.
    pub organization: Option<OrganizationId>,
    /// What was asked for.
    pub request: &'a Value,
    /// How it was before.
    pub before: &'a Value,
    /// How it is now.
    pub after: &'a Value,
}

/// What came of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// How it was afterwards, of what it is about.
    pub after: Value,
    /// Whether an earlier run had done it, and this one changed nothing.
    pub repeated: bool,
}

/// What an earlier run of the same command led to, if there was one.
///
/// # Errors
/// 422 when the key came with another command; the database's.
pub async fn earlier(
    transaction: &mut Transaction<'static, Postgres>,
    decision: &Decision,
    action: &str,
    organization: Option<OrganizationId>,
    request: &Value,
) -> Result<Option<Value>, Error> {
    let row = sqlx::query!("select action, organization_id, request, after from audit_log where idempotency_key = $1", decision.key)
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(row) = row else { return Ok(None) };
    if row.action != action || row.organization_id != organization.map(OrganizationId::uuid) || row.request != *request {
        return Err(Problem::invalid_field("idempotency_key", "was used with another command").into());
    }
    Ok(Some(row.after))
}

/// Logs a change.
///
/// # Errors
/// 409 while another run of the same command has done it and not told yet; the database's.
pub async fn record(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    decision: &Decision,
    change: &Change<'_>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into audit_log (at, actor, action, organization_id, reason, request, before, after, request_id, idempotency_key,
            trace_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        state.clock.now(),
        decision.actor,
        change.action,
        change.organization.map(OrganizationId::uuid),
        decision.reason,
        change.request,
        change.before,
        change.after,
        decision.request_id,
        decision.key,
        chassis::telemetry::trace_id()
    )
    .execute(&mut **transaction)
    .await
    .map_err(|error| match constraint(&error) {
        // Distinguished from any other unique violation [B-54].
        Some("audit_log_idempotency_key") => Problem::conflict("idempotency_conflict", "The same command is being carried out").into(),
        _ => Error::from(error),
    })?;
    Ok(())
}

/// Rows of a list at most.
const MOST: i64 = 500;

/// Which rows.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Of this organization only.
    pub organization_id: Option<OrganizationId>,
    /// Of this verb only.
    pub action: Option<String>,
    /// Older than the row with this number: the last one of the page before.
    pub before: Option<i64>,
    /// So many at most; 500 at most and if absent.
    pub limit: Option<i64>,
}

/// A row of the log.
#[derive(Debug, Serialize)]
pub struct AuditRow {
    /// Its number, rising.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who decided.
    pub actor: String,
    /// The verb.
    pub action: String,
    /// Whose it is; none where it concerns everybody.
    pub organization_id: Option<Uuid>,
    /// Why.
    pub reason: String,
    /// What was asked for.
    pub request: Value,
    /// How it was before.
    pub before: Value,
    /// How it was afterwards.
    pub after: Value,
    /// The run of the command, or the call.
    pub request_id: Uuid,
    /// The trace of the request that it came by, which its caller may have named: to find it by. None of a command line.
    pub trace_id: Option<String>,
}

/// The log, newest first.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, query: &AuditQuery) -> Result<Vec<AuditRow>, Error> {
    let rows = sqlx::query_as!(
        AuditRow,
        "select id, at, actor, action, organization_id, reason, request, before, after, request_id, trace_id from audit_log
         where ($1::uuid is null or organization_id = $1) and ($2::text is null or action = $2) and ($3::bigint is null or id < $3)
         order by id desc limit $4",
        query.organization_id.map(OrganizationId::uuid),
        query.action,
        query.before,
        query.limit.unwrap_or(MOST).clamp(1, MOST)
    );
    Ok(rows.fetch_all(pool).await?)
}

/// Bytes as hexadecimal digits, as digests are logged.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |text, byte| text + &format!("{byte:02x}"))
}
