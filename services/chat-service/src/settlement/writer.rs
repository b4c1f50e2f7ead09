//! Moves settlements from the queue to the Redis stream, in batches, and keeps what Redis does not take.

use std::time::Duration;

use chassis::redis::Redis;
use chassis::telemetry::propagation::TRACEPARENT;
use contracts::usage::{FIELD, STREAM};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Record;
use crate::meters;

const BATCH: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the end of the last completion is looked for while stopping.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// How long Redis is tried while stopping; the host gives its tasks ten seconds.
const LAST_TRIES: Duration = Duration::from_secs(8);

/// The one reader of the queue.
#[derive(Debug)]
pub struct Writer {
    pub(super) queue: mpsc::Receiver<Record>,
    redis: Redis,
}

impl Writer {
    pub(super) const fn new(queue: mpsc::Receiver<Record>, redis: Redis) -> Self {
        Self { queue, redis }
    }

    /// Writes until the token is cancelled and every completion in flight has been settled.
    pub async fn run(mut self, stop: &CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if stop.is_cancelled() {
                // A place may still be held by a completion that is settling.
                let _ = tokio::time::timeout(LAST_LOOK, self.queue.recv_many(&mut batch, BATCH)).await;
            } else {
                tokio::select! {
                    _ = self.queue.recv_many(&mut batch, BATCH) => {}
                    () = stop.cancelled() => {}
                }
            }
            meters::queue(self.queue.max_capacity() - self.queue.capacity());
            if batch.is_empty() {
                if stop.is_cancelled() && self.queue.capacity() == self.queue.max_capacity() {
                    return;
                }
            } else if self.write(&batch, stop).await {
                batch.clear();
            } else {
                let lost = batch.len() + self.queue.len();
                meters::lost(lost);
                tracing::error!(settlements = lost, "stopping without Redis: these settlements end as abandoned");
                return;
            }
        }
    }

    /// Appends the batch, as often as it takes. A batch that was written without our hearing of it is written twice, which
    /// billing-service notices by the request id. False when the process must end first.
    async fn write(&self, batch: &[Record], stop: &CancellationToken) -> bool {
        let mut pause = FIRST_PAUSE;
        let give_up = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_TRIES).await;
        };
        tokio::pin!(give_up);
        loop {
            let Err(error) = self.append(batch).await else { return true };
            tracing::warn!(error.message = error.category(), settlements = batch.len(), "settlements wait for Redis");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut give_up => return false,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn append(&self, batch: &[Record]) -> Result<(), redis::RedisError> {
        let mut pipeline = redis::pipe();
        for record in batch {
            pipeline.cmd("XADD").arg(STREAM).arg("*").arg(FIELD).arg(&record.event);
            if let Some(traceparent) = &record.traceparent {
                pipeline.arg(TRACEPARENT).arg(traceparent);
            }
        }
        pipeline.query_async::<Vec<String>>(&mut self.redis.connection()).await.map(drop)
    }
}
