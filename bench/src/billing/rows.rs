//! Usage rows a second that one replica posts: the stream is filled while it does not run.

use std::time::{Duration, Instant};

use anyhow::Result;
use contracts::Shard;
use reqwest::Client;

use super::{Figure, number};
use crate::admission::Gateway;
use crate::stack::Stack;

async fn waiting(stack: &Stack) -> Result<u64> {
    let mut connection = stack.redis.redis.connection();
    let mut length = 0;
    for shard in Shard::all() {
        length += redis::cmd("XLEN").arg(shard.usage_stream()).query_async::<u64>(&mut connection).await?;
    }
    Ok(length)
}

/// Settles so many requests while billing-service is stopped, starts it, and waits until all are posted.
///
/// # Errors
/// When something does not answer.
pub async fn settled_rows(stack: &mut Stack, http: &Client, gateway: &Gateway, kind: &str, rows: usize) -> Result<Figure> {
    stack.program("billing-service")?.stop()?;
    gateway.settle(rows).await?;
    let filled = waiting(stack).await?;
    stack.program("billing-service")?.restart(http).await?;
    let (began, left) = (Instant::now(), waiting(stack).await?);
    while waiting(stack).await? > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What it had posted before it said that it is ready does not count.
    let rate = number(left) / began.elapsed().as_secs_f64();
    Ok(Figure::new(format!("usage rows posted by one replica, {kind}, {filled} waiting"), rate, "rows/s"))
}
