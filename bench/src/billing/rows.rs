//! Usage rows a second that are posted, and what they cost the database: the stream is filled while nobody reads it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use contracts::Shard;
use reqwest::Client;
use sqlx::postgres::PgPool;

use super::number;
use crate::admission::Gateway;
use crate::processes::ticks_of_family;
use crate::stack::{Running, Stack};

/// What posting came to.
#[derive(Debug, Clone, Copy)]
pub struct Posting {
    /// Rows that waited.
    pub waiting: u64,
    /// Rows a second, all replicas together.
    pub rows_per_second: f64,
    /// Processor time of all of Postgres for each row, in milliseconds: sealing and rollups included.
    pub database_ms: f64,
}

async fn waiting(stack: &Stack) -> Result<u64> {
    let mut connection = stack.redis.redis.connection();
    let mut length = 0;
    for shard in Shard::all() {
        length += redis::cmd("XLEN").arg(shard.usage_stream()).query_async::<u64>(&mut connection).await?;
    }
    Ok(length)
}

/// The first process of Postgres, whose children do the work.
async fn postmaster(pool: &PgPool) -> Result<u32> {
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(pool).await?;
    let stat = std::fs::read_to_string(format!("/proc/{backend}/stat"))?;
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)).context("a parent")?;
    Ok(parent.parse()?)
}

/// Settles so many requests while no replica of billing-service runs, starts all, and waits until everything is posted. `others` are the
/// replicas beside the stack's own.
///
/// # Errors
/// When something does not answer.
pub async fn settled_rows(
    stack: &mut Stack,
    http: &Client,
    gateway: &Gateway,
    pool: &PgPool,
    others: &mut [Running],
    rows: usize,
) -> Result<Posting> {
    stack.program("billing-service")?.stop()?;
    for other in others.iter_mut() {
        other.stop()?;
    }
    gateway.settle(rows).await?;
    let (filled, postmaster) = (waiting(stack).await?, postmaster(pool).await?);
    let before = ticks_of_family(postmaster)?;
    for other in others.iter_mut() {
        other.restart(http).await?;
    }
    stack.program("billing-service")?.restart(http).await?;
    let (began, left) = (Instant::now(), waiting(stack).await?);
    while waiting(stack).await? > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What was posted before all said that they are ready does not count as rows a second, but was work of the database.
    let rows_per_second = number(left) / began.elapsed().as_secs_f64();
    let ticks = ticks_of_family(postmaster)?.saturating_sub(before);
    Ok(Posting { waiting: filled, rows_per_second, database_ms: number(ticks) * 10.0 / number(filled.max(1)) })
}
