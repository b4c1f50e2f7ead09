//! A consumer of a group: each message has its effect at least once; the handler makes it exactly once.

use std::future::Future;
use std::time::Duration;

use redis::RedisError;
use redis::streams::{StreamAutoClaimReply, StreamInfoGroupsReply, StreamPendingCountReply, StreamReadReply};
use tokio_util::sync::CancellationToken;

use super::{Message, publish};
use crate::postgres::{DatabaseError, is_conflict, is_unavailable, keep_running};
use crate::redis::Redis;

/// Longest wait for new messages in one call.
const BLOCK: Duration = Duration::from_millis(500);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// Messages that one command reads or acknowledges: Redis does one command at a time, and whoever is to be admitted waits for it.
const AT_ONCE: usize = 100;
/// Rounds between two looks for what others left behind, while there is enough to do without.
const ROUNDS: usize = 8;

/// Why a batch was not handled.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// It is at fault itself: coming again often enough, it is set aside.
    #[error("{0:#}")]
    Rejected(anyhow::Error),
    /// What handling needs is away: it comes again for as long as that takes.
    #[error("{0:#}")]
    Unavailable(anyhow::Error),
}

impl HandleError {
    /// What an error of the database, or one that may hide it, means for a message: only an answer that would always be the same is
    /// the message's own fault.
    pub fn of<E: DatabaseError + std::error::Error + Send + Sync + 'static>(error: E) -> Self {
        let passing = error.database().is_some_and(|error| is_unavailable(error) || is_conflict(error));
        if passing { Self::Unavailable(error.into()) } else { Self::Rejected(error.into()) }
    }
}

/// What is done with messages. All of a batch succeed or fail together: the handler works in one transaction.
pub trait Handler: Send + Sync {
    /// Applies a batch; an error leaves the batch unacknowledged, and it comes again.
    fn handle(&self, batch: &[Message]) -> impl Future<Output = Result<(), HandleError>> + Send;
}

/// Reads a stream as a member of a consumer group.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// The stream.
    pub stream: String,
    /// The group; made at the stream's beginning when it is not there.
    pub group: &'static str,
    /// This member's name, unique among replicas.
    pub name: String,
    /// Messages handled together at most.
    pub batch: usize,
    /// A message that another member has held for this long is taken over.
    pub claim_after: Duration,
    /// Deliveries after which a message that is rejected on its own goes to `<stream>:dead` ([`replay`](super::replay) brings it back).
    pub max_deliveries: usize,
    /// Whether what was acknowledged is removed from the stream: yes where this group is the only reader.
    pub delete_acknowledged: bool,
}

impl Consumer {
    /// Consumes until the token is cancelled. Redis being away, or gone and back without the group, is survived.
    pub async fn run(&self, redis: &Redis, handler: &impl Handler, stop: &CancellationToken) {
        keep_running("stream-consumer", stop, PAUSE_AFTER_FAILURE, || async {
            self.create_group(redis).await?;
            let mut connection = redis.blocking_connection(BLOCK).await?;
            let mut rounds = 0_usize;
            while !stop.is_cancelled() {
                let mut left = 0;
                if rounds.is_multiple_of(ROUNDS) {
                    let claimed = self.claim(redis).await?;
                    left = claimed.len();
                    self.process(redis, handler, claimed).await?;
                }
                let read = self.read(&mut connection).await?;
                // Where one batch was left behind there may be more.
                rounds = if left >= self.batch || read.len() < self.batch { 0 } else { rounds + 1 };
                self.process(redis, handler, read).await?;
                self.record_lag(redis).await?;
            }
            Ok(())
        })
        .await;
    }

    async fn create_group(&self, redis: &Redis) -> Result<(), RedisError> {
        let created: Result<(), RedisError> = redis::cmd("XGROUP")
            .arg("CREATE")
            .arg(&self.stream)
            .arg(self.group)
            .arg("0")
            .arg("MKSTREAM")
            .query_async(&mut redis.connection())
            .await;
        match created {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            _ => Ok(()),
        }
    }

    /// A batch of new messages, with several commands where it is large.
    async fn read(&self, connection: &mut redis::aio::MultiplexedConnection) -> Result<Vec<Message>, RedisError> {
        let mut messages = self.read_some(connection, self.batch.min(AT_ONCE), true).await?;
        while messages.len().is_multiple_of(AT_ONCE) && (1..self.batch).contains(&messages.len()) {
            let more = self.read_some(connection, (self.batch - messages.len()).min(AT_ONCE), false).await;
            // What was read is ours already, and is handled; the next call says what is wrong.
            let Ok(more) = more else { break };
            if more.is_empty() {
                break;
            }
            messages.extend(more);
        }
        Ok(messages)
    }

    async fn read_some(
        &self,
        connection: &mut redis::aio::MultiplexedConnection,
        count: usize,
        is_patient: bool,
    ) -> Result<Vec<Message>, RedisError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(self.group).arg(&self.name).arg("COUNT").arg(count);
        if is_patient {
            command.arg("BLOCK").arg(u64::try_from(BLOCK.as_millis()).unwrap_or(500));
        }
        let reply: Option<StreamReadReply> = command.arg("STREAMS").arg(&self.stream).arg(">").query_async(connection).await?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        Ok(entries.map(|entry| Message::from_entry(&entry)).collect())
    }

    /// Takes over what a member left behind: another that died, or this one before it failed.
    async fn claim(&self, redis: &Redis) -> Result<Vec<Message>, RedisError> {
        let reply: StreamAutoClaimReply = redis::cmd("XAUTOCLAIM")
            .arg(&self.stream)
            .arg(self.group)
            .arg(&self.name)
            .arg(u64::try_from(self.claim_after.as_millis()).unwrap_or(u64::MAX))
            .arg("0")
            .arg("COUNT")
            .arg(self.batch)
            .query_async(&mut redis.connection())
            .await?;
        Ok(reply.claimed.iter().map(Message::from_entry).collect())
    }

    /// Handles a batch; when it fails, each message on its own, so that one bad message does not hold up the others.
    async fn process(&self, redis: &Redis, handler: &impl Handler, batch: Vec<Message>) -> anyhow::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        crate::step!("stream.read");
        match handler.handle(&batch).await {
            Ok(()) => {
                crate::step!("stream.handled");
                self.acknowledge(redis, &batch).await?;
                crate::step!("stream.acknowledged");
                return Ok(());
            }
            // One by one it would go no better.
            Err(HandleError::Unavailable(error)) => return Err(error),
            Err(HandleError::Rejected(error)) if batch.len() == 1 => return self.rejected(redis, &batch[0], &error).await,
            Err(HandleError::Rejected(_)) => {}
        }
        let mut failure = None;
        for message in batch {
            let one = std::slice::from_ref(&message);
            match handler.handle(one).await {
                Ok(()) => self.acknowledge(redis, one).await?,
                Err(HandleError::Unavailable(error)) => return Err(error),
                Err(HandleError::Rejected(error)) => failure = self.rejected(redis, &message, &error).await.err().or(failure),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn acknowledge(&self, redis: &Redis, batch: &[Message]) -> Result<(), RedisError> {
        let mut connection = redis.connection();
        for some in batch.chunks(AT_ONCE) {
            let ids: Vec<&str> = some.iter().map(|message| message.id.as_str()).collect();
            let mut pipeline = redis::pipe();
            pipeline.cmd("XACK").arg(&self.stream).arg(self.group).arg(&ids).ignore();
            if self.delete_acknowledged {
                pipeline.cmd("XDEL").arg(&self.stream).arg(&ids).ignore();
            }
            let () = pipeline.query_async(&mut connection).await?;
        }
        Ok(())
    }

    /// Leaves a rejected message pending, to come again, until it has been delivered too often.
    async fn rejected(&self, redis: &Redis, message: &Message, error: &anyhow::Error) -> anyhow::Result<()> {
        let pending: StreamPendingCountReply = redis::cmd("XPENDING")
            .arg(&self.stream)
            .arg(self.group)
            .arg(&message.id)
            .arg(&message.id)
            .arg(1)
            .query_async(&mut redis.connection())
            .await?;
        let deliveries = pending.ids.first().map_or(0, |entry| entry.times_delivered);
        if deliveries < self.max_deliveries {
            anyhow::bail!("message {} of {} was rejected: {error:#}", message.id, self.stream);
        }
        let reason = format!("{error:#}");
        let mut fields: Vec<(&str, &str)> = message.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.extend([("dead_reason", reason.as_str()), ("dead_id", message.id.as_str())]);
        publish(redis, &format!("{}:dead", self.stream), &fields, None).await?;
        self.acknowledge(redis, std::slice::from_ref(message)).await?;
        metrics::counter!("stream_dead_letters_total", "stream" => self.stream.clone()).increment(1);
        tracing::error!(messaging.message.id = message.id, error.message = reason, "a message was rejected too often and set aside");
        Ok(())
    }

    async fn record_lag(&self, redis: &Redis) -> Result<(), RedisError> {
        let mut connection = redis.connection();
        let lag = if self.delete_acknowledged {
            redis::cmd("XLEN").arg(&self.stream).query_async(&mut connection).await?
        } else {
            // What was handled stays for others: the group knows what it has not seen and what it has not acknowledged.
            let reply: StreamInfoGroupsReply = redis::cmd("XINFO").arg("GROUPS").arg(&self.stream).query_async(&mut connection).await?;
            let group = reply.groups.into_iter().find(|group| group.name == self.group);
            group.map_or(0, |group| group.lag.unwrap_or(0) + group.pending)
        };
        metrics::gauge!("stream_lag_messages", "stream" => self.stream.clone()).set(u32::try_from(lag).unwrap_or(u32::MAX));
        Ok(())
    }
}
