//! Works through stored events: each in one transaction, with its effect and its mark together [B-14]. One that fails comes again
//! after a pause, and is set aside after enough tries [B-20, B-22]; the others do not wait for it.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chassis::telemetry::continue_from;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::backoff;
use super::facts::{self, Family, Fetched};
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
    chassis::step!("event.claimed");
    if claimed.rows_affected() == 1
        && let Err(error) = handle(state, &due.event_id).await
    {
        failed(state, &due.event_id, due.attempts + 1, &error).await?;
    }
    Ok(true)
}

/// One try of an event, in the trace of the request that brought it.
async fn handle(state: &AppState, event_id: &str) -> Result<(), Error> {
    let event = sqlx::query!(
        "select kind, payload -> 'data' -> 'object' -> 'id' as object_id, traceparent from stripe_events where event_id = $1",
        event_id
    )
    .fetch_one(&state.pool)
    .await?;
    let span = tracing::info_span!(parent: None, "event", otel.name = %format!("handle {}", event.kind), otel.kind = "consumer",
        stripe.event.id = event_id, stripe.event.r#type = event.kind);
    if let Some(brought_in) = &event.traceparent {
        continue_from(&span, brought_in);
    }
    let id = event.object_id.as_ref().and_then(Value::as_str).filter(|id| is_id(id));
    fetch_and_have_effect(state, event_id, &event.kind, id).instrument(span).await
}

/// The effect of an event and its mark: the object is fetched first, without any lock [B-82], and has its effect with the mark.
async fn fetch_and_have_effect(state: &AppState, event_id: &str, kind: &str, id: Option<&str>) -> Result<(), Error> {
    let fetched = match (Family::of(kind), id) {
        (None, _) => None,
        (Some(_), None) => return Err(Error::Unreadable("id")),
        (Some(family), Some(id)) => facts::fetch(state, state.stripe.as_ref().ok_or(Error::NoStripe)?, family, id).await?,
    };
    if fetched.is_some() {
        chassis::step!("event.fetched");
    }
    let span = match &fetched {
        Some(fetched) => facts::effect_span(state, fetched).await?,
        None => tracing::Span::none(),
    };
    have_effect(state, event_id, fetched.as_ref()).instrument(span).await
}

async fn have_effect(state: &AppState, event_id: &str, fetched: Option<&Fetched>) -> Result<(), Error> {
    in_transaction!(state.pool, |transaction| {
        let waiting =
            sqlx::query_scalar!("select 1 from stripe_events where event_id = $1 and state = 'received' for no key update", event_id);
        if waiting.fetch_optional(&mut **transaction).await?.is_none() {
            return Ok(());
        }
        let ours = match fetched {
            Some(fetched) => {
                let ours = facts::apply(state, transaction, fetched).await?;
                chassis::step!("event.applied");
                ours
            }
            None => false,
        };
        let outcome = if ours { "handled" } else { "ignored" };
        sqlx::query!("update stripe_events set state = $2, handled_at = $3 where event_id = $1", event_id, outcome, state.clock.now())
            .execute(&mut **transaction)
            .await?;
        Ok(())
    })
}

/// Whether a text can be an id of Stripe's: it becomes a part of a path.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Leaves an event for its next try, or sets it aside.
async fn failed(state: &AppState, event_id: &str, attempts: i32, error: &Error) -> Result<(), Error> {
    // What cannot be read today cannot be read tomorrow: set aside at once, for people to look at [B-20].
    if attempts < MAX_ATTEMPTS && !matches!(error, Error::Unreadable(_)) {
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
