//! Moves settlements from the queue to the Redis stream, in batches, and keeps what Redis does not take.

use std::time::Duration;

use chassis::redis::Redis;
use chassis::telemetry::propagation::{TRACEPARENT, continue_from};
use contracts::billing::{BillingClient, SettleError, SettleRequest};
use contracts::usage::{FIELD, STREAM};
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Record;
use crate::meters;

const BATCH: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the end of the last completion is looked for while stopping.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// How long it is tried to hand over what is left while stopping; the host gives its tasks ten seconds.
const LAST_TRIES: Duration = Duration::from_secs(9);

/// The one reader of the queue.
#[derive(Debug)]
pub struct Writer {
    pub(super) queue: mpsc::Receiver<Record>,
    redis: Redis,
    pub(super) last_tries: Duration,
}

impl Writer {
    pub(super) const fn new(queue: mpsc::Receiver<Record>, redis: Redis) -> Self {
        Self { queue, redis, last_tries: LAST_TRIES }
    }

    /// Writes until the token is cancelled and every completion in flight has been settled, or the process must end first. Returns how
    /// many settlements were lost then.
    pub async fn run(mut self, billing: &BillingClient, stop: &CancellationToken) -> usize {
        let last_tries = self.last_tries;
        let mut batch = Vec::with_capacity(BATCH);
        let end = async {
            stop.cancelled().await;
            tokio::time::sleep(last_tries).await;
        };
        tokio::select! {
            () = self.write_all(&mut batch, billing, stop) => return 0,
            () = end => {}
        }
        // What waits, and the places of completions that still have not ended.
        let lost = batch.iter().filter(|record| !record.taken).count() + self.queue.max_capacity() - self.queue.capacity();
        if lost > 0 {
            meters::lost(lost);
            tracing::error!(settlements = lost, "stopping without Redis and billing-service: these settlements end as abandoned");
        }
        lost
    }

    async fn write_all(&mut self, batch: &mut Vec<Record>, billing: &BillingClient, stop: &CancellationToken) {
        loop {
            if stop.is_cancelled() {
                // A place may still be held by a completion that is settling.
                let _ = tokio::time::timeout(LAST_LOOK, self.queue.recv_many(batch, BATCH)).await;
            } else {
                tokio::select! {
                    _ = self.queue.recv_many(batch, BATCH) => {}
                    () = stop.cancelled() => {}
                }
            }
            meters::queue(self.queue.max_capacity() - self.queue.capacity());
            if !batch.is_empty() {
                self.write(batch, billing, stop).await;
            } else if stop.is_cancelled() && self.queue.capacity() == self.queue.max_capacity() {
                return;
            }
        }
    }

    /// Appends the batch, as often as it takes. A batch that was written without our hearing of it is written twice, which
    /// billing-service notices by the request id; for the same reason it can be told directly what Redis does not take when there is
    /// no time left to wait for Redis.
    async fn write(&self, batch: &mut Vec<Record>, billing: &BillingClient, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.append(batch).await {
            tracing::warn!(error.message = error.category(), settlements = batch.len(), "settlements wait for Redis");
            if stop.is_cancelled() {
                join_all(batch.iter_mut().map(|record| settle(record, billing))).await;
                batch.retain(|record| !record.taken);
                if batch.is_empty() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                // What waits when the process is told to end is handed over at once.
                () = stop.cancelled(), if !stop.is_cancelled() => pause = FIRST_PAUSE,
            }
        }
        batch.clear();
    }

    async fn append(&self, batch: &[Record]) -> Result<(), redis::RedisError> {
        let mut pipeline = redis::pipe();
        for record in batch {
            // Ids, numbers and instants: there is nothing that cannot be written.
            let event = serde_json::to_string(&record.event).unwrap_or_default();
            pipeline.cmd("XADD").arg(STREAM).arg("*").arg(FIELD).arg(event);
            if let Some(traceparent) = &record.traceparent {
                pipeline.arg(TRACEPARENT).arg(traceparent);
            }
        }
        pipeline.query_async::<Vec<String>>(&mut self.redis.connection()).await.map(drop)
    }
}

/// Tells billing-service directly. What it refuses is settled already, or will never be.
async fn settle(record: &mut Record, billing: &BillingClient) {
    let span = tracing::info_span!("settle directly", otel.kind = "client", trivet.request_id = %record.event.request_id);
    if let Some(traceparent) = &record.traceparent {
        continue_from(&span, traceparent);
    }
    let event = &record.event;
    let request = SettleRequest {
        usage: event.usage,
        counted_by: event.counted_by,
        outcome: event.outcome,
        started_at: event.started_at,
        ended_at: event.ended_at,
    };
    record.taken = billing.settle(event.reservation_id, &request).instrument(span).await != Err(SettleError::Unavailable);
}
