//! Following a stream as one of many readers, each of which sees every entry (no group).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::streams::StreamReadReply;
use tokio_util::sync::CancellationToken;

use super::Message;
use crate::postgres::keep_running;
use crate::redis::Redis;

/// Each call returns after this long even when nothing came, so that silence and a lost connection can be told apart.
const BLOCK: Duration = Duration::from_millis(300);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// When the stream was last heard.
#[derive(Debug, Clone)]
pub struct Contact(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// Milliseconds since `origin`, plus one; zero for never.
    heard: AtomicU64,
}

impl Default for Contact {
    fn default() -> Self {
        Self(Arc::new(Inner { origin: Instant::now(), heard: AtomicU64::new(0) }))
    }
}

impl Contact {
    fn hear(&self, at: Instant) {
        let millis = at.duration_since(self.0.origin).as_millis();
        self.0.heard.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Ordering::SeqCst);
    }

    /// Whether everything written to the stream until `age` ago has been seen.
    #[must_use]
    pub fn within(&self, age: Duration) -> bool {
        match self.0.heard.load(Ordering::SeqCst) {
            0 => false,
            heard => self.0.origin.elapsed() <= Duration::from_millis(heard - 1) + age,
        }
    }
}

/// Follows `stream` until the token is cancelled, beginning with entries that are younger than `since` by the server's own clock.
/// `contact` is renewed with the instant at which the last answered call began: what was written before it has been seen.
pub async fn tail(
    redis: &Redis,
    stream: &str,
    since: Duration,
    contact: &Contact,
    stop: &CancellationToken,
    mut each: impl FnMut(Message),
) {
    let position = std::sync::Mutex::new(None::<String>);
    let each = std::sync::Mutex::new(&mut each);
    keep_running("stream-tail", stop, PAUSE_AFTER_FAILURE, || async {
        let mut connection = redis.blocking_connection(BLOCK).await?;
        while !stop.is_cancelled() {
            let asked = Instant::now();
            let known = position.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let after = match known {
                Some(id) => id,
                None => first_position(&mut connection, since).await?,
            };
            let reply: Option<StreamReadReply> = redis::cmd("XREAD")
                .arg("COUNT")
                .arg(1000)
                .arg("BLOCK")
                .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(300))
                .arg("STREAMS")
                .arg(stream)
                .arg(&after)
                .query_async(&mut connection)
                .await?;
            for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
                let message = Message::from_entry(&entry);
                *position.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(message.id.clone());
                each.lock().unwrap_or_else(std::sync::PoisonError::into_inner)(message);
            }
            // From here on nothing may be skipped, also when nothing has come yet.
            position.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(after);
            contact.hear(asked);
        }
        Ok(())
    })
    .await;
}

/// The id before entries that are younger than `since`.
async fn first_position(connection: &mut redis::aio::MultiplexedConnection, since: Duration) -> Result<String, redis::RedisError> {
    let (seconds, _micros): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    Ok(format!("{}-0", seconds.saturating_sub(since.as_secs()) * 1000))
}
