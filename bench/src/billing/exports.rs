//! An export of many rows: how fast, and in how much memory.

use std::time::Instant;

use anyhow::{Context, Result};
use reqwest::Client;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use super::{Figure, number};
use crate::stack::Stack;

/// Makes a customer's one usage row many, a millisecond apart, and lets the customer export them.
///
/// # Errors
/// When the customer has no row, or the service does not answer.
pub async fn export(stack: &mut Stack, http: &Client, rows: u64) -> Result<Vec<Figure>> {
    let pool = PgPool::connect(&stack.postgres.url("postgres", "billing")).await?;
    let base = stack.base("billing-service")?;
    let page: Value = http.get(format!("{base}/v1/usage")).bearer_auth(&stack.key).send().await?.error_for_status()?.json().await?;
    let request = page["data"][0]["request_id"].as_str().and_then(|id| id.strip_prefix("req_")).context("a usage row")?;
    let columns: String = sqlx::query_scalar(
        "select string_agg(column_name, ', ') from information_schema.columns where table_name = 'usage_events' and column_name not in ('request_id', 'ended_at')",
    )
    .fetch_one(&pool)
    .await?;
    let copy = format!(
        "insert into usage_events (request_id, ended_at, {columns}) select gen_random_uuid(), ended_at - number * interval '1 millisecond', {columns}
         from usage_events, generate_series(1, {rows}) as number where request_id = '{request}'::uuid"
    );
    sqlx::query(AssertSqlSafe(copy)).execute(&pool).await?;
    sqlx::query("analyze usage_events").execute(&pool).await?;
    let before = stack.program("billing-service")?.resident_bytes()?;
    let url = format!("{base}/v1/usage/export?format=csv&from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z");
    let began = Instant::now();
    let mut answer = http.get(url).bearer_auth(&stack.key).send().await?.error_for_status()?;
    let (mut lines, mut most) = (0_u64, before);
    while let Some(chunk) = answer.chunk().await? {
        lines += u64::try_from(chunk.split(|byte| *byte == b'\n').count())? - 1;
        most = most.max(stack.program("billing-service")?.resident_bytes()?);
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(vec![
        Figure::new(format!("export of {lines} lines (CSV)"), number(lines) / seconds, "rows/s"),
        Figure::new("memory of billing-service before the export", number(before) / 1e6, "MB"),
        Figure::new("the most that it had during the export", number(most) / 1e6, "MB"),
    ])
}
