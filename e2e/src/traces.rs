//! What Jaeger has of a step: each is one trace, from the wish to its last effect.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::stack::{JAEGER, Stack};

/// The id of a trace that a client begins; another one each time, in a Jaeger that lives as long as the run.
pub fn begin() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(1);
    format!("{:032x}", COUNTER.fetch_add(1, Ordering::SeqCst))
}

/// Waits until the trace has all these operations.
pub async fn has(stack: &Stack, trace: &str, operations: &[&str]) -> Result<()> {
    let what = format!("{operations:?} in the trace {trace}");
    stack
        .eventually(&what, async || {
            let answer = stack.http.get(format!("{JAEGER}/api/traces/{trace}")).send().await?;
            let found: Value = answer.json().await?;
            Ok(found["data"].get(0).is_some_and(|trace| is_all_there(trace, operations)).then_some(()))
        })
        .await
}

/// Waits until one trace has all these operations, whichever it is.
pub async fn one_has(stack: &Stack, operations: &[&str]) -> Result<()> {
    let [.., last] = operations else { return Ok(()) };
    stack
        .eventually(&format!("a trace with {operations:?}"), async || {
            let search = stack.http.get(format!("{JAEGER}/api/traces"));
            let query = [("service", "billing-service"), ("operation", *last), ("limit", "100"), ("lookback", "1h")];
            let found: Value = search.query(&query).send().await?.json().await?;
            let mut traces = found["data"].as_array().context("traces")?.iter();
            Ok(traces.any(|trace| is_all_there(trace, operations)).then_some(()))
        })
        .await
}

fn is_all_there(trace: &Value, operations: &[&str]) -> bool {
    let spans = trace["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: BTreeSet<&str> = spans.iter().filter_map(|span| span["operationName"].as_str()).collect();
    operations.iter().all(|operation| names.contains(operation))
}
