//! An export of many rows: how fast, and in how much memory.

use std::time::Instant;

use anyhow::{Context, Result};
use reqwest::Client;
use serde_json::Value;
use sqlx::postgres::PgPool;

use super::{Figure, fill, number};
use crate::stack::Stack;

/// The id of a usage row of the customer.
///
/// # Errors
/// When there is none.
pub async fn usage_row(stack: &Stack, http: &Client) -> Result<String> {
    let base = stack.base("billing-service")?;
    let page: Value = http.get(format!("{base}/v1/usage")).bearer_auth(&stack.key).send().await?.error_for_status()?.json().await?;
    Ok(page["data"][0]["request_id"].as_str().and_then(|id| id.strip_prefix("req_")).context("a usage row")?.to_owned())
}

/// Lets the customer export, when there are so many usage rows at least.
///
/// # Errors
/// When the customer has no row, or the service does not answer.
pub async fn export(stack: &mut Stack, http: &Client, rows: u64) -> Result<Vec<Figure>> {
    let pool = PgPool::connect(&stack.postgres.url("postgres", "billing")).await?;
    fill(stack, http, &pool, rows).await?;
    sqlx::query("vacuum (analyze) usage_events").execute(&pool).await?;
    let base = stack.base("billing-service")?;
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
