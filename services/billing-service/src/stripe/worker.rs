//! Works through stored events: each in one transaction, with its effect and its mark together [B-14].

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use serde_json::Value;
use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::state::AppState;

const POLL: Duration = Duration::from_secs(1);

/// Works until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    keep_running("stripe-events", stop, Duration::ZERO, || async {
        while handle_one(state).await? {}
        tokio::select! {
            () = state.stripe_events.notified() => {}
            () = tokio::time::sleep(POLL) => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    })
    .await;
}

/// Handles the oldest event that is left; false when there is none. Replicas do not get into each other's way.
///
/// # Errors
/// The database's.
pub async fn handle_one(state: &AppState) -> Result<bool, Error> {
    in_transaction!(state.pool, |transaction| {
        let event = sqlx::query!(
            "select event_id, kind, payload from stripe_events where state = 'received' order by received_at, event_id limit 1 for update skip locked"
        )
        .fetch_optional(&mut **transaction)
        .await?;
        let Some(event) = event else { return Ok(false) };
        let outcome = if apply(transaction, &event.kind, &event.payload).await? { "handled" } else { "ignored" };
        sqlx::query!(
            "update stripe_events set state = $2, handled_at = $3 where event_id = $1",
            event.event_id,
            outcome,
            state.clock.now()
        )
        .execute(&mut **transaction)
        .await?;
        Ok(true)
    })
}

/// The effect of an event; false when its kind is none of ours.
async fn apply(transaction: &mut Transaction<'static, Postgres>, kind: &str, payload: &Value) -> Result<bool, Error> {
    let object = &payload["data"]["object"];
    match kind {
        // A customer that we made and whose answer got lost is recognized by the organization in its metadata.
        "customer.created" | "customer.updated" => {
            let organization: Option<identity::OrganizationId> =
                object["metadata"]["organization_id"].as_str().and_then(|id| id.parse().ok());
            if let (Some(organization), Some(customer)) = (organization, object["id"].as_str()) {
                sqlx::query!(
                    "update stripe_customers set customer_id = $2 where organization_id = $1 and customer_id is null",
                    organization.uuid(),
                    customer
                )
                .execute(&mut **transaction)
                .await?;
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}
