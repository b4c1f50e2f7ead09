//! An organization's wallet: made once, from auth-service's event or at first contact, with its signup credit.

use anyhow::Context;
use chassis::in_transaction;
use chassis::inbox;
use chassis::streams::{HandleError, Handler, Message};
use chassis::telemetry::continue_from;
use contracts::events::OrganizationCreated;
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use tracing::Instrument;

use crate::error::Error;
use crate::grants::{self, NewGrant, Source};
use crate::ledger;
use crate::state::AppState;
use crate::stripe::customers;

/// Makes the wallet with its signup credit, if the organization has none.
///
/// # Errors
/// The database's.
pub async fn ensure_wallet(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
) -> Result<(), Error> {
    let now = state.clock.now();
    let made = sqlx::query!(
        "insert into wallets (organization_id, currency, created_at) values ($1, $2, $3) on conflict do nothing",
        organization.uuid(),
        crate::ledger::CREDIT.code(),
        now
    )
    .execute(&mut **transaction)
    .await?;
    if made.rows_affected() == 0 {
        return Ok(());
    }
    ledger::open(state, transaction, organization, crate::ledger::CREDIT).await?;
    if state.config.signup_grant > 0 {
        let grant = NewGrant::plain(Source::Signup, organization.to_string(), state.config.signup_grant);
        grants::issue(state, transaction, organization, &grant).await?;
    }
    Ok(())
}

/// Consumes auth-service's events.
#[derive(Debug, Clone)]
pub struct AuthEvents(pub AppState);

impl Handler for AuthEvents {
    async fn handle(&self, batch: &[Message]) -> Result<(), HandleError> {
        for message in batch.iter().filter(|message| message.field("kind") == OrganizationCreated::KIND) {
            let span = tracing::info_span!("organization.created", otel.kind = "consumer", messaging.system = "redis");
            continue_from(&span, message.field("traceparent"));
            self.created(message).instrument(span).await?;
        }
        Ok(())
    }
}

impl AuthEvents {
    async fn created(&self, message: &Message) -> Result<(), HandleError> {
        let state = &self.0;
        let created = serde_json::from_str(message.field("payload")).context("not the creation of an organization");
        let created: OrganizationCreated = created.map_err(HandleError::Rejected)?;
        let event_id = message.field("id");
        let made: Result<(), Error> = in_transaction!(state.pool, |transaction| {
            if inbox::claim(transaction, contracts::events::AUTH_STREAM, event_id, state.clock.now()).await? {
                ensure_wallet(state, transaction, created.organization_id).await?;
                if state.config.stripe.secret_key.is_some() {
                    customers::want(state, transaction, &created).await?;
                }
            }
            Ok(())
        });
        made.map_err(HandleError::of)
    }
}
