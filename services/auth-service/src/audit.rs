//! Who did what: a row for each event of authentication, failures included, and a log line without secrets [I-79].
//!
//! What has an effect is recorded in the transaction of the effect: both are there or neither is. A refusal has no effect, and is
//! given whether or not it can be recorded.

pub mod retention;

use std::fmt::Display;

use chassis::http::RequestContext;
use chassis::{Clock, Random};
use identity::OrganizationId;
use sqlx::{PgConnection, PgPool};

use crate::error::Error;
use crate::state::AppState;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    action: &'static str,
    outcome: &'static str,
    actor: String,
    organization_id: Option<OrganizationId>,
    client_address: Option<String>,
    request_id: Option<String>,
}

impl Event {
    /// What was tried, such as `session.create`, by a request of somebody who is not known yet; a success, unless said otherwise.
    #[must_use]
    pub fn of(request: &RequestContext, action: &'static str) -> Self {
        Self {
            client_address: Some(request.client_ip.to_string()),
            request_id: Some(request.request_id.clone()),
            ..Self::of_operator(action).by("anonymous")
        }
    }

    /// What was tried on the command line, where there is no request.
    #[must_use]
    pub fn of_operator(action: &'static str) -> Self {
        Self { action, outcome: "success", actor: "operator".to_owned(), organization_id: None, client_address: None, request_id: None }
    }

    /// Who tried: an id, or a service's name.
    #[must_use]
    pub fn by(mut self, actor: impl Display) -> Self {
        self.actor = actor.to_string();
        self
    }

    /// Where it happened.
    #[must_use]
    pub fn within(mut self, organization: OrganizationId) -> Self {
        self.organization_id = Some(organization);
        self
    }

    /// How it ended.
    #[must_use]
    pub fn ended(mut self, outcome: &'static str) -> Self {
        self.outcome = outcome;
        self
    }

    /// Writes the row, in the transaction of the effect. To be logged when that is committed.
    ///
    /// # Errors
    /// The database's.
    pub async fn write(&self, connection: &mut PgConnection, clock: &Clock, random: &Random) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "insert into audit_events (id, occurred_at, action, outcome, actor, organization_id, client_address, request_id)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            random.uuid_v7(clock),
            clock.now(),
            self.action,
            self.outcome,
            self.actor,
            self.organization_id.map(OrganizationId::uuid),
            self.client_address,
            self.request_id,
        )
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Writes the line.
    pub fn log(&self) {
        tracing::info!(audit.action = self.action, audit.outcome = self.outcome, audit.actor = self.actor, "audit");
    }

    /// Records a refusal: row and line. That there can be no row is only logged.
    pub async fn refuse(&self, pool: &PgPool, clock: &Clock, random: &Random) {
        self.log();
        let written = match pool.acquire().await {
            Ok(mut connection) => self.write(&mut connection, clock, random).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::error!(
                audit.action = self.action,
                audit.outcome = self.outcome,
                error.message = %error,
                "a refusal is missing in the audit"
            );
        }
    }
}

/// Records why a request was refused, and gives the error back for the answer.
pub async fn refused(state: &AppState, event: Event, error: Error) -> Error {
    let event = event.ended(error.outcome());
    match error {
        // The database is what failed: asking it again would only make everybody wait longer.
        Error::Database(_) => event.log(),
        _ => event.refuse(&state.pool, &state.clock, &state.random).await,
    }
    error
}
