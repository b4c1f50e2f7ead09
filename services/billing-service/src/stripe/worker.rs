//! Works through stored events: each in one transaction, with its effect and its mark together [B-14]. One that fails comes again
//! after a pause, and is set aside after enough tries [B-20, B-22]; the others do not wait for it. Several are fetched at once; the effects of
//! what is about one customer come one after the other [B-24].

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chassis::telemetry::continue_from;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::backoff;
use super::facts::{self, Family, turn};
use crate::error::Error;
use crate::state::AppState;

const POLL: Duration = Duration::from_secs(1);
/// Tries before an event is set aside: with their pauses, about half a day.
const MAX_ATTEMPTS: i32 = 20;
/// An event that was taken is left alone for longer than Stripe may take to answer; one that failed comes again sooner.
const TAKEN_SECONDS: i64 = 25;
/// Events that are worked on at once: an answer of Stripe's takes a third of a second, and its pace allows more than three in one.
const LANES: usize = 8;

/// An event that is tried now.
struct Claimed {
    id: String,
    kind: String,
    object_id: Option<Value>,
    /// The status of its object when it was told of, if it has one.
    status: Option<String>,
    traceparent: Option<String>,
    /// This try included.
    attempts: i32,
    /// The number of the look at its object.
    look: i64,
}

/// Works until the token is cancelled, on several events at once.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let lane = |_| async {
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
    };
    join_all((0..LANES).map(lane)).await;
}

/// Tries the oldest event that is due, together with what else is due about the same object: one look at it answers them all. False when
/// none is. Nobody gets into another's way: the try is noted first, with the instant of the next one, so that whatever becomes of this one
/// is known already.
///
/// # Errors
/// The database's, when no event could be taken at all.
pub async fn handle_one(state: &AppState) -> Result<bool, Error> {
    let mut claimed = claim(state).await?;
    let Some(family) = claimed.first().map(|first| Family::of(&first.kind)) else { return Ok(false) };
    // An event that means nothing, stored by an older version, must not speak for one that does: that comes again.
    claimed.retain(|event| Family::of(&event.kind) == family);
    let Some(first) = claimed.first() else { return Ok(false) };
    chassis::step!("event.claimed");
    if let Err(error) = handle(state, first, &claimed).await {
        for event in &claimed {
            failed(state, event, &error).await?;
        }
    }
    Ok(true)
}

/// Takes the oldest event that is due, and those about its object.
async fn claim(state: &AppState) -> Result<Vec<Claimed>, Error> {
    // When each comes again, by how often it was tried.
    let pauses: Vec<DateTime<Utc>> = (0..=12).map(|attempts| backoff::next(state, backoff::seconds(attempts).max(TAKEN_SECONDS))).collect();
    let claimed = sqlx::query_as!(
        Claimed,
        r#"with first as (
             select event_id, payload #>> '{data,object,id}' as object_id from stripe_events where state = 'received' and next_attempt_at <= $1
             order by received_at limit 1 for no key update skip locked),
           others as (
             select o.event_id from stripe_events o join first on o.payload #>> '{data,object,id}' = first.object_id
             where o.state = 'received' and o.next_attempt_at <= $1 and o.event_id <> first.event_id for no key update of o skip locked)
           update stripe_events e set attempts = attempts + 1, next_attempt_at = ($2::timestamptz[])[least(attempts, 12) + 1]
           from (select event_id from first union all select event_id from others) due where e.event_id = due.event_id
           returning e.event_id as id, kind, payload -> 'data' -> 'object' -> 'id' as object_id,
             payload #>> '{data,object,status}' as status, traceparent, attempts,
             nextval('stripe_fetches') as "look!""#,
        state.clock.now(),
        &pauses
    );
    Ok(claimed.fetch_all(&state.pool).await?)
}

/// One try of events about one object, in the trace of the request that brought the first.
async fn handle(state: &AppState, first: &Claimed, all: &[Claimed]) -> Result<(), Error> {
    let span = tracing::info_span!(parent: None, "event", otel.name = %format!("handle {}", first.kind), otel.kind = "consumer",
        stripe.event.id = first.id, stripe.event.r#type = first.kind);
    if let Some(brought_in) = &first.traceparent {
        continue_from(&span, brought_in);
    }
    fetch_and_have_effect(state, first, all).instrument(span).await
}

/// The effect of what events are about, and their mark: the object is fetched first, without any lock [B-82], and has its effect with the mark.
/// What Stripe does not have means nothing, where each of them may be of something that is gone [`facts::may_be_gone`].
///
/// # Errors
/// [`Error::Unreadable`] without an id; [`Error::Internal`] when Stripe does not have what it never deletes; Stripe's, the database's, those of
/// the effect. Nothing has changed then.
async fn fetch_and_have_effect(state: &AppState, first: &Claimed, all: &[Claimed]) -> Result<(), Error> {
    let ids: Vec<String> = all.iter().map(|event| event.id.clone()).collect();
    let id = first.object_id.as_ref().and_then(Value::as_str).filter(|id| is_id(id));
    let fetched = match (Family::of(&first.kind), id) {
        (None, _) => None,
        (Some(_), None) => return Err(Error::Unreadable("id")),
        (Some(family), Some(id)) => facts::look(state.stripe.as_ref().ok_or(Error::NoStripe)?, family, id, first.look).await?,
    };
    if fetched.is_some() {
        chassis::step!("event.fetched");
    } else if all.iter().any(|event| !facts::may_be_gone(&event.kind, event.status.as_deref())) {
        // Ignored, it would never be looked at again, and what was paid has no effect: it comes again, and people are told of it in the end
        // [B-20, B-22].
        return Err(Error::Internal(
            "Stripe does not have what it never deletes: STRIPE_SECRET_KEY or STRIPE_API_BASE may be of another account than the event",
        ));
    }
    in_transaction!(state.pool, |transaction| {
        let turn = turn::take(transaction, &ids, fetched.as_ref()).await?;
        if turn.waiting.is_empty() {
            return Ok(());
        }
        let outcome = match &fetched {
            Some(fetched) => {
                let ours = facts::apply(state, transaction, fetched, &turn).instrument(facts::effect_span(fetched, &turn)).await?;
                chassis::step!("event.applied");
                if ours { "handled" } else { "ignored" }
            }
            None => "ignored",
        };
        let now = state.clock.now();
        sqlx::query!(
            "update stripe_events set state = $2, handled_at = $3 where event_id = any((select $1::text[])::text[])",
            &turn.waiting,
            outcome,
            now
        )
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
async fn failed(state: &AppState, event: &Claimed, error: &Error) -> Result<(), Error> {
    let Claimed { id, attempts, .. } = event;
    // What cannot be read today cannot be read tomorrow: set aside at once, for people to look at [B-20].
    if *attempts < MAX_ATTEMPTS && !matches!(error, Error::Unreadable(_)) {
        tracing::warn!(stripe.event.id = id, attempts, error.message = error.chain(), "an event of Stripe failed and will be tried again");
        let next = backoff::next(state, backoff::seconds(attempts - 1));
        sqlx::query!(
            "update stripe_events set next_attempt_at = $3 where event_id = $1 and attempts = $2 and state = 'received'",
            id,
            attempts,
            next
        )
        .execute(&state.pool)
        .await?;
        return Ok(());
    }
    sqlx::query!("update stripe_events set state = 'parked' where event_id = $1 and state = 'received'", id).execute(&state.pool).await?;
    metrics::counter!("billing_stripe_events_parked_total").increment(1);
    tracing::error!(stripe.event.id = id, attempts, error.message = error.chain(), "an event of Stripe failed too often and was set aside");
    Ok(())
}
