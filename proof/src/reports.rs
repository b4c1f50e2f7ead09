//! Another program of a customer's, that reports what was used: each batch until it is acknowledged, and every other one twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use gateway_bench::stack::Stack;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;

use crate::shop::{answer, sign_in};

/// Events in a batch.
const BATCH: u64 = 5;
/// Between two batches, and between two tries of one.
const PAUSE: Duration = Duration::from_millis(20);
const TYPE: &str = "report";

/// Reports under way.
#[derive(Debug)]
pub struct Reports {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<String>>,
}

impl Reports {
    /// Has this person's program report.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn begin(stack: &Stack, http: &Client, email: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (auth, billing) = (stack.base("auth-service")?, stack.base("billing-service")?);
        let task = tokio::spawn(report(http.clone(), auth, billing, email.to_owned(), stop.clone()));
        Ok(Self { stop, task })
    }

    /// Lets the last batch end; the ids of the events that were acknowledged.
    ///
    /// # Errors
    /// When the program panicked.
    pub async fn end(self) -> Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?)
    }
}

async fn report(http: Client, auth: String, billing: String, email: String, stop: Arc<AtomicBool>) -> Vec<String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (mut acknowledged, mut session) = (Vec::new(), None);
    while !stop.load(Ordering::Relaxed) {
        let first = NUMBER.fetch_add(BATCH, Ordering::Relaxed);
        let ids: Vec<String> = (first..first + BATCH).map(|number| format!("report-{number}")).collect();
        for _ in 0..=((first / BATCH) % 2) {
            while !stop.load(Ordering::Relaxed) {
                match send(&http, &auth, &billing, &email, &mut session, &ids).await {
                    Ok(()) => {
                        acknowledged.extend(ids.clone());
                        break;
                    }
                    // A session ends; a new one costs a while, so only then.
                    Err(error) if error.to_string().starts_with("401") => session = None,
                    Err(_) => {}
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    acknowledged
}

async fn send(http: &Client, auth: &str, billing: &str, email: &str, session: &mut Option<String>, ids: &[String]) -> Result<()> {
    let token = if let Some(token) = session {
        token.clone()
    } else {
        let token = sign_in(http, auth, email).await?;
        // The same under the same key, as often as it is asked for.
        let meter = json!({"name": "reports", "event_type": TYPE, "aggregation": "sum", "value_path": ["units"]});
        let meter = http.post(format!("{billing}/v1/meters")).header("idempotency-key", "reports").json(&meter);
        answer(meter.bearer_auth(&token)).await?;
        session.insert(token).clone()
    };
    let events: Vec<Value> = ids
        .iter()
        .map(|id| json!({"specversion": "1.0", "id": id, "source": "/drill", "type": TYPE, "data": {"units": id.len()}}))
        .collect();
    let request = http.post(format!("{billing}/v1/usage-events")).header("content-type", "application/cloudevents-batch+json");
    let told = answer(request.bearer_auth(token).body(json!(events).to_string())).await?;
    let counted = |result: &Value| matches!(result["status"].as_str(), Some("accepted" | "duplicate"));
    ensure!(told["results"].as_array().is_some_and(|results| results.iter().all(counted)), "{told}");
    Ok(())
}

/// What was acknowledged is there, and its meter has counted all that is there, each once.
///
/// # Errors
/// Whatever does not agree.
pub async fn agree(pool: &PgPool, acknowledged: &[String]) -> Result<usize> {
    let known: Vec<String> = sqlx::query_scalar("select id from metered_events").fetch_all(pool).await?;
    let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    let lost = acknowledged.iter().find(|id| !known.contains(id.as_str()));
    ensure!(lost.is_none(), "{lost:?} was acknowledged and is lost");
    let sums = "select (select coalesce(sum((data ->> 'units')::numeric), 0)::bigint from metered_events),
        (select coalesce(sum(amount), 0)::bigint from (select amount from meter_rollups where grain = 'day' union all select amount from meter_deltas) all_of_them)";
    let (raw, counted): (i64, i64) = sqlx::query_as(sums).fetch_one(pool).await?;
    ensure!(raw == counted, "{raw} was reported and {counted} is counted");
    Ok(known.len())
}
