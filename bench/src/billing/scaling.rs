//! Whether a request costs more when there are more wallets, more usage rows or more replicas.

use std::time::Duration;

use anyhow::Result;
use reqwest::Client;
use serde::Serialize;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use super::rows::settled_rows;
use crate::admission::{Gateway, Way};
use crate::stack::{ISSUER, Running, Stack};

/// What a lease of a wallet must hold for a request, in micro-units.
const EACH: i64 = 1500;
/// Rows that are inserted by one statement: its triggers keep all of them in memory or beside it.
const CHUNK: u64 = 500_000;

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Wallets that take turns.
    pub wallets: usize,
    /// Usage rows that are there already.
    pub there: u64,
    /// Processes of billing-service that read the same streams.
    pub replicas: usize,
}

/// What was measured of one size.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Wallets that take turns.
    pub wallets: usize,
    /// Usage rows that were there already.
    pub rows_there: u64,
    /// Processes of billing-service.
    pub replicas: usize,
    /// Usage rows posted a second, all replicas together.
    pub rows_per_second: f64,
    /// Processor time of Postgres for each of them, in milliseconds.
    pub database_ms_per_row: f64,
    /// Requests admitted and settled a second by 32 clients, each of which asks again at once.
    pub requests_per_second: f64,
    /// The same until the last of them was posted too: the full load, which could go on for ever.
    pub carried_per_second: f64,
    /// The rate of what follows: half of that, whatever the answers take.
    pub half_load_per_second: f64,
    /// The 99th percentile of how late the thread that begins the requests was woken, in microseconds: that much of the others is the machine's.
    pub woken_p99_us: u64,
    /// Microseconds from when a request should have begun until it was admitted.
    pub admission_p50_us: u64,
    /// The same.
    pub admission_p99_us: u64,
    /// Microseconds from when a request should have begun until it was settled too.
    pub settled_p50_us: u64,
    /// The same.
    pub settled_p99_us: u64,
    /// The 99th percentile of admissions at half of what the clients reached, at which more comes than is posted.
    pub hurried_p99_us: u64,
    /// Requests a second of 32 clients by the way that it was before leases: two calls of billing-service for each.
    pub calls_per_second: f64,
}

/// Measures one size: `rows` are posted, and requests made for `time`, twice.
///
/// # Errors
/// When something does not answer.
pub async fn point(stack: &mut Stack, http: &Client, size: Size, rows: usize, time: Duration) -> Result<Point> {
    let pool = PgPool::connect(&stack.postgres.url("postgres", "billing")).await?;
    fill(stack, http, &pool, size.there).await?;
    let mut others: Vec<Running> = Vec::new();
    for _ in 1..size.replicas {
        others.push(stack.replica("billing-service", http).await?);
    }
    // For what waits to be posted, and for what is measured afterwards until the leases are filled again.
    let each = EACH * i64::try_from(rows.div_ceil(size.wallets) + 100)?;
    let urls = (ISSUER, stack.auth_url.as_str(), stack.billing_url.as_str());
    let gateway = Gateway::start(urls, &stack.chat_key, stack.redis.redis.clone(), http.clone(), size.wallets, each).await?;
    // What autovacuum does elsewhere: the server of the measurement has none, so that it does not begin in the middle.
    sqlx::query("vacuum (analyze)").execute(&pool).await?;
    let posting = settled_rows(stack, http, &gateway, &pool, &mut others, rows).await?;
    let (full, carried) = gateway.measure(Way::Lease, "full load", 32, time, 0).await?;
    let half = gateway.measure_at(carried / 2.0, time).await?;
    let hurried = gateway.measure_at(full.rps / 2.0, time).await?.admitted;
    let (calls, _) = gateway.measure(Way::CallPerRequest, "full load", 32, time, 0).await?;
    for other in &mut others {
        other.stop()?;
    }
    Ok(Point {
        wallets: size.wallets,
        rows_there: size.there,
        replicas: size.replicas,
        rows_per_second: posting.rows_per_second,
        database_ms_per_row: posting.database_ms,
        requests_per_second: full.rps,
        carried_per_second: carried,
        half_load_per_second: half.settled.rps,
        woken_p99_us: half.woken.p99_us,
        admission_p50_us: half.admitted.p50_us,
        admission_p99_us: half.admitted.p99_us,
        settled_p50_us: half.settled.p50_us,
        settled_p99_us: half.settled.p99_us,
        hurried_p99_us: hurried.p99_us,
        calls_per_second: calls.rps,
    })
}

/// Makes a customer's one usage row many, a millisecond apart, until there are so many.
///
/// # Errors
/// When there is no row, or the database does not answer.
pub async fn fill(stack: &Stack, http: &Client, pool: &PgPool, rows: u64) -> Result<()> {
    if rows == 0 {
        return Ok(());
    }
    let request = super::exports::usage_row(stack, http).await?;
    // The customer's own: an export is of these.
    let count = format!(
        "select count(*) from usage_events where organization_id = (select organization_id from usage_events where request_id = '{request}'::uuid)"
    );
    let there: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(pool).await?;
    let mut there = u64::try_from(there)?;
    let columns: String = sqlx::query_scalar(
        "select string_agg(column_name, ', ') from information_schema.columns where table_name = 'usage_events' and column_name not in ('request_id', 'ended_at')",
    )
    .fetch_one(pool)
    .await?;
    while there < rows {
        let last = rows.min(there + CHUNK);
        let copy = format!(
            "insert into usage_events (request_id, ended_at, {columns}) select gen_random_uuid(), ended_at - number * interval '1 millisecond', {columns}
             from usage_events, generate_series({there} + 1, {last}) as number where request_id = '{request}'::uuid"
        );
        sqlx::query(AssertSqlSafe(copy)).execute(pool).await?;
        there = last;
    }
    Ok(())
}
