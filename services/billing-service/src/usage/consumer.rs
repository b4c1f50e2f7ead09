//! Consumes usage events: a batch in one transaction, acknowledged after its commit. A repetition finds the settlement made.

use anyhow::Context;
use chassis::in_transaction;
use chassis::streams::{HandleError, Handler, Message};
use chassis::telemetry::continue_from;
use contracts::ReservationId;
use contracts::usage::{FIELD, UsageEvent};
use tracing::Instrument;

use super::settlement::{Used, settle};
use crate::error::Error;
use crate::reservations::{find, lock_organizations};
use crate::state::AppState;

/// The handler of the usage stream.
#[derive(Debug, Clone)]
pub struct UsageEvents(pub AppState);

impl Handler for UsageEvents {
    async fn handle(&self, batch: &[Message]) -> Result<(), HandleError> {
        let state = &self.0;
        let events = batch.iter().map(|message| {
            let event: UsageEvent = serde_json::from_str(message.field(FIELD)).context("not a usage event")?;
            Ok((event, message.field("traceparent")))
        });
        let events: Vec<(UsageEvent, &str)> = events.collect::<anyhow::Result<_>>().map_err(HandleError::Rejected)?;
        let reservations: Vec<ReservationId> = events.iter().map(|(event, _)| event.reservation_id).collect();
        let settled: Result<(), Error> = in_transaction!(state.pool, |transaction| {
            // Another replica may have a batch of the same organizations in another order.
            lock_organizations(transaction, &reservations).await?;
            for (event, traceparent) in &events {
                let span = tracing::info_span!(
                    "settle",
                    otel.name = "settle usage",
                    otel.kind = "consumer",
                    messaging.system = "redis",
                    messaging.destination.name = contracts::usage::STREAM,
                    request.id = %event.request_id,
                );
                continue_from(&span, traceparent);
                let settle = async {
                    let held = find(transaction, event.reservation_id).await?.filter(|held| held.request_id == event.request_id);
                    let held = held.ok_or(Error::NotFound)?;
                    settle(state, transaction, &held, &Used::from_event(event)).await
                };
                settle.instrument(span).await?;
            }
            Ok(())
        });
        settled.map_err(HandleError::of)
    }
}
