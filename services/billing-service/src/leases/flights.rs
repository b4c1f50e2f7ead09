//! Requests whose process died: settled with what their last checkpoint counted, once their deadline has passed.

use std::time::Duration;

use admission::{End, Expired, Settlement};
use chassis::postgres::keep_running;
use contracts::Shard;
use contracts::usage::{CountedBy, Outcome, UsageEvent};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::rates;
use crate::state::AppState;

const BATCH: usize = 100;

/// Sweeps until the token is cancelled.
pub async fn sweep_until(state: &AppState, every: Duration, stop: &CancellationToken) {
    keep_running("flight-sweeper", stop, every, || async { Ok(sweep(state).await.map(drop)?) }).await;
}

/// Settles the flights whose deadline has passed; returns how many it was that were settled by this sweep. One that cannot be settled is passed over until the next sweep.
/// Any number of replicas may sweep at once: a flight is settled once.
///
/// # Errors
/// When Redis or the database is away.
pub async fn sweep(state: &AppState) -> Result<usize, Error> {
    let mut settled = 0;
    for shard in Shard::all() {
        let mut stuck = 0;
        loop {
            let expired = state.admissions.expired(shard, state.clock.now(), stuck, BATCH).await?;
            for flight in &expired {
                let flight = match flight {
                    Ok(flight) => flight,
                    // Perhaps of a newer version: a replica of that one settles it.
                    Err(unreadable) => {
                        stuck += 1;
                        metrics::counter!("billing_flights_stuck_total").increment(1);
                        tracing::error!(request.id = unreadable.request_id, field = unreadable.what, "a flight cannot be read");
                        continue;
                    }
                };
                match settle(state, flight).await {
                    Ok(Swept::Charged(price)) => {
                        settled += 1;
                        count(flight, price);
                    }
                    Ok(Swept::Posted) => settled += 1,
                    Ok(Swept::ByAnother) => {}
                    Err(error) if error.is_outage() => return Err(error),
                    Err(error) => {
                        stuck += 1;
                        metrics::counter!("billing_flights_stuck_total").increment(1);
                        tracing::error!(request.id = %flight.note.event.request_id, error.message = error.chain(), "a flight cannot be settled");
                    }
                }
            }
            if expired.len() < BATCH {
                break;
            }
        }
    }
    if settled > 0 {
        tracing::warn!(requests = settled, "requests of dead processes were settled by their last checkpoint");
    }
    Ok(settled)
}

/// Whether there was a checkpoint, the tokens that are charged by it, and what may not be: how many came after it nobody knows but the
/// provider, so it is about as many as came in the interval before it, and in money at most what goes back.
fn count(flight: &Expired, price: i64) {
    let checkpoint = if flight.checkpoint.is_some() { "noted" } else { "none" };
    metrics::counter!("billing_flights_abandoned_total", "checkpoint" => checkpoint).increment(1);
    let usage = flight.checkpoint.unwrap_or_default();
    for (direction, tokens) in [("input", usage.total_input()), ("output", usage.total_output())] {
        metrics::counter!("billing_flights_abandoned_tokens_total", "direction" => direction).increment(tokens);
    }
    metrics::counter!("billing_flights_abandoned_unbilled_tokens_total").increment(flight.last_interval_tokens().unwrap_or(0));
    let returned = u64::try_from(flight.note.event.reserved_micros - price).unwrap_or(0);
    metrics::counter!("billing_flights_abandoned_returned_micros_total", "checkpoint" => checkpoint).increment(returned);
}

/// What became of a flight.
enum Swept {
    /// Its last checkpoint is charged, at this price.
    Charged(i64),
    /// Its usage had been posted, by a process that lived after all.
    Posted,
    /// Another replica was faster, and has counted it.
    ByAnother,
}

async fn settle(state: &AppState, flight: &Expired) -> Result<Swept, Error> {
    let known = &flight.note.event;
    let posted =
        sqlx::query_scalar!(r#"select exists (select from usage_events where request_id = $1) as "posted!""#, known.request_id.uuid())
            .fetch_one(&state.pool)
            .await?;
    let event = UsageEvent {
        usage: flight.checkpoint.unwrap_or_default(),
        counted_by: CountedBy::Abandoned,
        outcome: Outcome::Deadline,
        ended_at: state.clock.now(),
        ..known.clone()
    };
    let card = rates::by_id(&state.pool, event.rate_card_id).await?;
    let price_micros = card.card.price.amount(&event.usage)?;
    let settlement = Settlement {
        event: &event,
        price_micros,
        end: if posted { End::Posted } else { End::Used },
        counted: &flight.note.counted,
        traceparent: flight.note.traceparent.as_deref(),
    };
    let settled = state.admissions.settle(&settlement).await?;
    Ok(match (settled.is_first, posted) {
        (false, _) => Swept::ByAnother,
        (true, true) => Swept::Posted,
        (true, false) => Swept::Charged(price_micros),
    })
}
