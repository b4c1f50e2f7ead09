//! Settles in Redis, in batches, and keeps what Redis does not take or has not on its disk yet.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use admission::{Admissions, End, ServerRun, Settlement};
use chassis::telemetry::propagation::continue_from;
use contracts::billing::{BillingClient, SettleError};
use futures::future::BoxFuture;
use futures::{FutureExt, future};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Record;
use crate::config::Durability;
use crate::meters;

const BATCH: usize = 256;
/// Settlements that may wait for the disk; more wait for these.
const UNCONFIRMED: usize = 16 * BATCH;
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
    admissions: Admissions,
    durability: Durability,
    pub(super) last_tries: Duration,
}

/// What was taken by Redis and may not be on its disk.
struct Unconfirmed<Settled> {
    /// All were settled on the run that confirmed last, or on a later one.
    records: Vec<Settled>,
    run: Option<ServerRun>,
    /// The question that is under way, and how many it is about.
    asked: Option<(usize, BoxFuture<'static, Option<ServerRun>>)>,
}

impl<Settled> Unconfirmed<Settled> {
    const fn new() -> Self {
        Self { records: Vec::new(), run: None, asked: None }
    }

    /// The answer to the question under way; for ever, when there is none.
    async fn answer(&mut self) -> (usize, Option<ServerRun>) {
        match &mut self.asked {
            Some((count, answer)) => (*count, answer.await),
            None => future::pending().await,
        }
    }

    /// What is on the disk is out of our hands; what may not be is settled again, which changes nothing if it is there. That is all of it when
    /// another run of the server answers, or none: what was settled while the question was under way may have gone with the run before.
    fn confirm(&mut self, count: usize, on_disk_of: Option<ServerRun>, batch: &mut Vec<Settled>) {
        self.asked = None;
        if on_disk_of.is_some() && on_disk_of == self.run {
            self.records.drain(..count);
            return;
        }
        batch.append(&mut self.records);
        self.run = on_disk_of.or_else(|| self.run.take());
    }
}

impl Writer {
    pub(super) const fn new(queue: mpsc::Receiver<Record>, admissions: Admissions, durability: Durability) -> Self {
        Self { queue, admissions, durability, last_tries: LAST_TRIES }
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
        let mut unconfirmed = Unconfirmed::new();
        loop {
            let has_room = unconfirmed.records.len() < UNCONFIRMED;
            if stop.is_cancelled() {
                // A place may still be held by a completion that is settling.
                let _ = tokio::time::timeout(LAST_LOOK, self.queue.recv_many(batch, BATCH)).await;
            } else {
                tokio::select! {
                    _ = self.queue.recv_many(batch, BATCH), if has_room => {}
                    (count, run) = unconfirmed.answer() => unconfirmed.confirm(count, run, batch),
                    () = stop.cancelled() => {}
                }
            }
            meters::queue(self.queue.max_capacity() - self.queue.capacity());
            if !batch.is_empty() {
                self.write(batch, billing, stop).await;
                if self.durability == Durability::Disk {
                    unconfirmed.records.append(batch);
                }
                batch.clear();
            } else if stop.is_cancelled() && self.queue.capacity() == self.queue.max_capacity() {
                return self.finish(unconfirmed, batch, billing, stop).await;
            }
            self.ask(&mut unconfirmed);
        }
    }

    /// Asks whether what was taken so far is on the disk, unless that is being asked.
    fn ask(&self, unconfirmed: &mut Unconfirmed<Record>) {
        if unconfirmed.asked.is_some() || unconfirmed.records.is_empty() {
            return;
        }
        let admissions = self.admissions.clone();
        let question = async move {
            let answer = admissions.on_disk().await.inspect_err(|error| {
                tracing::warn!(error.message = error.category(), "Redis does not confirm settlements");
            });
            let run = answer.unwrap_or(None);
            chassis::step!("settlement.confirmed");
            if run.is_none() {
                tokio::time::sleep(FIRST_PAUSE).await;
            }
            run
        };
        unconfirmed.asked = Some((unconfirmed.records.len(), question.boxed()));
    }

    /// The last question. Without an answer billing-service is told directly; the second of both changes nothing.
    async fn finish(
        &self,
        mut unconfirmed: Unconfirmed<Record>,
        batch: &mut Vec<Record>,
        billing: &BillingClient,
        stop: &CancellationToken,
    ) {
        unconfirmed.asked = None;
        self.ask(&mut unconfirmed);
        if unconfirmed.asked.is_some() {
            let (count, run) = unconfirmed.answer().await;
            unconfirmed.confirm(count, run, batch);
        }
        if !batch.is_empty() {
            self.write(batch, billing, stop).await;
        }
    }

    /// Settles the batch, as often as it takes: what was settled without our hearing of it is settled once all the same. What Redis does
    /// not take, when there is no time left to wait for Redis, is told to billing-service.
    async fn write(&self, batch: &mut Vec<Record>, billing: &BillingClient, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let failed = self.settle_all(batch).await;
            let Some((_, error)) = failed.first() else { return };
            tracing::warn!(error.message = error.category(), settlements = failed.len(), "settlements wait for Redis");
            let is_ending = stop.is_cancelled();
            // One that Redis answers with an error would be so answered for ever, and the others would wait behind it.
            let refused: HashSet<usize> =
                failed.iter().filter(|(_, error)| !chassis::redis::is_unavailable(error)).map(|(index, _)| *index).collect();
            let told = batch.iter_mut().enumerate().filter(|(index, _)| is_ending || refused.contains(index));
            future::join_all(told.map(|(_, record)| settle(record, billing))).await;
            batch.retain(|record| !record.taken);
            if batch.is_empty() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                // What waits when the process is told to end is handed over at once.
                () = stop.cancelled(), if !is_ending => pause = FIRST_PAUSE,
            }
        }
    }

    /// Settles each; those that were not settled, by their index.
    async fn settle_all(&self, batch: &mut [Record]) -> Vec<(usize, redis::RedisError)> {
        let now = Instant::now();
        let settlements = batch.iter_mut().enumerate().map(|(index, record)| async move {
            let end = record.tell(now);
            let settlement = Settlement {
                event: &record.event,
                price_micros: record.price,
                end,
                counted: &record.counted,
                traceparent: record.traceparent.as_deref(),
            };
            chassis::step!("settlement.writing");
            let settled = self.admissions.settle(&settlement).await.inspect(|_| chassis::step!("settlement.written"));
            settled.err().map(|error| (index, error))
        });
        future::join_all(settlements).await.into_iter().flatten().collect()
    }
}

/// Tells billing-service directly. What it refuses is settled already, or will never be.
async fn settle(record: &mut Record, billing: &BillingClient) {
    if record.end == End::NotMade {
        // Whether anything was taken for it only Redis knows: its note ends by itself.
        record.taken = true;
        return;
    }
    let span = tracing::info_span!("settle directly", otel.kind = "client", trivet.request_id = %record.event.request_id);
    if let Some(traceparent) = &record.traceparent {
        continue_from(&span, traceparent);
    }
    record.taken = billing.settle(&record.event).instrument(span).await != Err(SettleError::Unavailable);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u8; 0] = [];

    #[test]
    fn a_run_of_the_server_confirms_only_what_was_settled_on_it() {
        let run = |id: &str| Some(ServerRun::from(id.to_owned()));
        let mut unconfirmed = Unconfirmed::<u8>::new();
        let mut settles_again = |settled: &[u8], count, on_disk_of| {
            let mut batch = Vec::new();
            unconfirmed.records.extend(settled);
            unconfirmed.confirm(count, on_disk_of, &mut batch);
            unconfirmed.records.extend(&batch);
            batch
        };
        assert_eq!(settles_again(&[1], 1, run("first")), [1], "nobody knows on which run it was settled");
        assert_eq!(settles_again(&[2], 1, run("first")), NONE);
        assert_eq!(settles_again(&[3], 1, None), [2, 3], "what came meanwhile is as unknown");
        assert_eq!(settles_again(&[], 2, run("first")), NONE);
        assert_eq!(settles_again(&[4, 5], 1, run("second")), [4, 5]);
        assert_eq!(settles_again(&[], 2, run("second")), NONE);
        assert_eq!(settles_again(&[], 0, run("second")), NONE, "and no more is left");
    }
}
