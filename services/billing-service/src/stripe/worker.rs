//! Works through stored events: each in one transaction, with its effect and its mark together [B-14]. One that fails comes again
//! after a pause, and is set aside after enough tries [B-20, B-22]; the others do not wait for it.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgPool, Postgres, Transaction};
use tokio_util::sync::CancellationToken;

use super::backoff;
use crate::error::Error;
use crate::state::AppState;

const POLL: Duration = Duration::from_secs(1);
/// Tries before an event is set aside: with their pauses, about half a day.
const MAX_ATTEMPTS: i32 = 20;

/// Works until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    keep_running("stripe-events", stop, POLL, || async {
        while !stop.is_cancelled() {
            while !stop.is_cancelled() && handle_one(state).await? {}
            tokio::select! {
                () = state.stripe_events.notified() => {}
                () = tokio::time::sleep(POLL) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    })
    .await;
}

/// Tries the oldest event that is due; false when none is. Replicas do not get into each other's way: the try is noted first, with
/// the instant of the next one, so that whatever becomes of this one is known already.
///
/// # Errors
/// The database's, when no event could be taken at all.
pub async fn handle_one(state: &AppState) -> Result<bool, Error> {
    let now = state.clock.now();
    let due = sqlx::query!(
        "select event_id, attempts from stripe_events where state = 'received' and next_attempt_at <= $1 order by received_at, event_id limit 1",
        now
    )
    .fetch_optional(&state.pool)
    .await?;
    let Some(due) = due else { return Ok(false) };
    let claimed = sqlx::query!(
        "update stripe_events set attempts = attempts + 1, next_attempt_at = $3 where event_id = $1 and attempts = $2 and state = 'received'",
        due.event_id,
        due.attempts,
        backoff::next(state, backoff::seconds(due.attempts))
    )
    .execute(&state.pool)
    .await?;
    if claimed.rows_affected() == 1
        && let Err(error) = handle(state, &due.event_id).await
    {
        failed(state, &due.event_id, due.attempts + 1, &error).await?;
    }
    Ok(true)
}

/// The effect of an event and its mark.
async fn handle(state: &AppState, event_id: &str) -> Result<(), Error> {
    in_transaction!(state.pool, |transaction| {
        let event =
            sqlx::query!("select kind, payload from stripe_events where event_id = $1 and state = 'received' for no key update", event_id)
                .fetch_optional(&mut **transaction)
                .await?;
        let Some(event) = event else { return Ok(()) };
        let outcome = if apply(transaction, &event.kind, &event.payload).await? { "handled" } else { "ignored" };
        sqlx::query!("update stripe_events set state = $2, handled_at = $3 where event_id = $1", event_id, outcome, state.clock.now())
            .execute(&mut **transaction)
            .await?;
        Ok(())
    })
}

/// Leaves an event for its next try, or sets it aside.
async fn failed(state: &AppState, event_id: &str, attempts: i32, error: &Error) -> Result<(), Error> {
    if attempts < MAX_ATTEMPTS {
        tracing::warn!(
            stripe.event.id = event_id,
            attempts,
            error.message = error.chain(),
            "an event of Stripe failed and will be tried again"
        );
        return Ok(());
    }
    sqlx::query!("update stripe_events set state = 'parked' where event_id = $1 and state = 'received'", event_id)
        .execute(&state.pool)
        .await?;
    metrics::counter!("billing_stripe_events_parked_total").increment(1);
    tracing::error!(
        stripe.event.id = event_id,
        attempts,
        error.message = error.chain(),
        "an event of Stripe failed too often and was set aside"
    );
    Ok(())
}

/// Puts an event that was set aside back, with all its tries; false when there is no such event.
///
/// # Errors
/// The database's.
pub async fn replay(pool: &PgPool, event_id: &str, now: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    let replayed = sqlx::query!(
        "update stripe_events set state = 'received', attempts = 0, next_attempt_at = $2 where event_id = $1 and state = 'parked'",
        event_id,
        now
    )
    .execute(pool)
    .await?;
    Ok(replayed.rows_affected() == 1)
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
