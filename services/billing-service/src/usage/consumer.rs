//! Consumes usage events: a batch in one transaction, acknowledged after its commit. A repetition finds the request recorded. What turned
//! out to be free is taken off the sums that limit spending after that, once: should it not come to pass, less may be spent, never more.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use chassis::in_transaction;
use chassis::streams::{HandleError, Handler, Message};
use chassis::telemetry::{continue_from, trace_id};
use contracts::usage::{FIELD, SUMS, TAKEN, UsageEvent};
use tokio::sync::Semaphore;

use super::posting::{Posted, post_all};
use crate::error::Error;
use crate::state::AppState;

/// Batches that are posted at once: one is read while one is written. More would take the processors from each other, and come with smaller
/// batches. (Until migration 0098 they also waited for each other: all move the same accounts of the house.)
const TURNS: usize = 2;

/// The handler of the usage streams; clones take turns with each other.
#[derive(Debug, Clone)]
pub struct UsageEvents {
    state: AppState,
    turns: Arc<Semaphore>,
}

impl UsageEvents {
    /// For all streams of a process.
    #[must_use]
    pub fn new(state: AppState) -> Self {
        Self { state, turns: Arc::new(Semaphore::new(TURNS)) }
    }
}

impl Handler for UsageEvents {
    async fn handle(&self, batch: &[Message]) -> Result<(), HandleError> {
        let state = &self.state;
        // Each is a part of its own request's trace, for as long as the batch takes.
        let (posted, _spans): (Vec<Posted>, Vec<tracing::Span>) =
            batch.iter().map(read).collect::<anyhow::Result<Vec<_>>>().map_err(HandleError::Rejected)?.into_iter().unzip();
        // Fails only when it is closed, which nobody does.
        let _turn = self.turns.acquire().await;
        let done: Result<_, Error> = in_transaction!(state.pool, |transaction| { post_all(state, transaction, &posted).await });
        lower(state, &done.map_err(HandleError::of)?).await;
        Ok(())
    }
}

async fn lower(state: &AppState, free: &HashMap<String, i64>) {
    for (sum, micros) in free {
        if let Err(error) = state.admissions.lower(sum, *micros).await {
            metrics::counter!("billing_free_not_returned_micros_total").increment(u64::try_from(*micros).unwrap_or_default());
            tracing::warn!(error.message = error.category(), sum, micros, "what was free still counts against a limit of spending");
        }
    }
}

fn read(message: &Message) -> anyhow::Result<(Posted, tracing::Span)> {
    let event: UsageEvent = serde_json::from_str(message.field(FIELD)).context("not a usage event")?;
    let taken = message.field(TAKEN).parse().context("not an amount that was taken")?;
    let sums = match message.field(SUMS) {
        "" => Vec::new(),
        named => serde_json::from_str(named).context("not the names of sums")?,
    };
    let span = tracing::info_span!(
        "settle",
        otel.name = "settle usage",
        otel.kind = "consumer",
        messaging.system = "redis",
        request.id = %event.request_id,
    );
    continue_from(&span, message.field("traceparent"));
    let trace_id = span.in_scope(trace_id);
    Ok((Posted { event, taken, trace_id, sums }, span))
}
