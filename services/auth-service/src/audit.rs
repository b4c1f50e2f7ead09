//! Who did what: a row for each event of authentication, failures included, and a log line without secrets [I-79].

use chassis::http::RequestContext;
use chassis::{Clock, Random};
use identity::OrganizationId;
use sqlx::PgPool;

use crate::error::Error;

/// One event.
#[derive(Debug, Clone)]
pub struct Event<'e> {
    /// What was tried, such as `session.create`.
    pub action: &'static str,
    /// How it ended: `success`, or the reason.
    pub outcome: &'static str,
    /// Who tried: an id, or `anonymous`.
    pub actor: String,
    /// Where it happened, if that is known.
    pub organization_id: Option<OrganizationId>,
    /// The request.
    pub request: &'e RequestContext,
}

/// Records an event.
///
/// # Errors
/// The database's.
pub async fn record(pool: &PgPool, clock: &Clock, random: &Random, event: Event<'_>) -> Result<(), Error> {
    tracing::info!(audit.action = event.action, audit.outcome = event.outcome, audit.actor = event.actor, "audit");
    sqlx::query!(
        "insert into audit_events (id, occurred_at, action, outcome, actor, organization_id, client_address, request_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        random.uuid_v7(clock),
        clock.now(),
        event.action,
        event.outcome,
        event.actor,
        event.organization_id.map(OrganizationId::uuid),
        event.request.client_ip.to_string(),
        event.request.request_id,
    )
    .execute(pool)
    .await?;
    Ok(())
}
