//! Redis streams: appending, consumer groups that lose nothing, and readers that follow a stream from the end.

mod consumer;
mod tail;

use std::collections::HashMap;

use redis::RedisError;

use crate::redis::Redis;

pub use consumer::{Consumer, HandleError, Handler};
pub use tail::{Contact, tail};

/// One entry of a stream.
#[derive(Debug, Clone)]
pub struct Message {
    /// The entry's id on the stream.
    pub id: String,
    /// Its fields.
    pub fields: HashMap<String, String>,
}

impl Message {
    /// A field's text, empty when the entry has none of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn from_entry(entry: &redis::streams::StreamId) -> Self {
        let fields = entry.map.keys().filter_map(|name| Some((name.clone(), entry.get(name)?))).collect();
        Self { id: entry.id.clone(), fields }
    }
}

/// Brings what was set aside (`<stream>:dead`) back to the stream, oldest first; returns how many entries. Each is back on the stream
/// before it leaves the other: broken off, it is there twice and handled once.
///
/// # Errors
/// When Redis does not answer.
pub async fn replay(redis: &Redis, stream: &str) -> Result<u64, RedisError> {
    let (dead, mut connection) = (format!("{stream}:dead"), redis.connection());
    let mut replayed = 0;
    loop {
        let page: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg(&dead).arg("-").arg("+").arg("COUNT").arg(100).query_async(&mut connection).await?;
        for entry in &page.ids {
            let message = Message::from_entry(entry);
            let fields: Vec<(&str, &str)> = message
                .fields
                .iter()
                .filter(|(name, _)| !name.starts_with("dead_"))
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            publish(redis, stream, &fields, None).await?;
            let () = redis::cmd("XDEL").arg(&dead).arg(&message.id).query_async(&mut connection).await?;
            replayed += 1;
        }
        if page.ids.is_empty() {
            return Ok(replayed);
        }
    }
}

/// Appends an entry. `roughly_keep` bounds the stream's length (`MAXLEN ~`), where old entries may be given up.
///
/// # Errors
/// When Redis does not confirm the entry; it may still have been written.
pub async fn publish(redis: &Redis, stream: &str, fields: &[(&str, &str)], roughly_keep: Option<usize>) -> Result<String, RedisError> {
    let mut command = redis::cmd("XADD");
    command.arg(stream);
    if let Some(length) = roughly_keep {
        command.arg("MAXLEN").arg("~").arg(length);
    }
    command.arg("*").arg(fields);
    command.query_async(&mut redis.connection()).await
}
