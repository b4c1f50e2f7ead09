//! Customers who ask as fast as they are answered, streams among them and people who leave in the middle, and Stripe telling of events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use reqwest::Client;
use ring::hmac;
use serde_json::json;
use tokio::task::JoinHandle;

/// What events are signed with.
pub const WEBHOOK_SECRET: &str = "whsec_drill";
const CLIENTS: usize = 8;

/// How requests ended, as their customers saw it.
pub type Answers = BTreeMap<String, usize>;

/// Load under way.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Answers>>,
    stripe: JoinHandle<Vec<String>>,
}

impl Load {
    /// Begins it, with these keys.
    #[must_use]
    pub fn begin(http: &Client, chat: &str, billing: &str, keys: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS).map(|number| {
            let (stop, http, url) = (stop.clone(), http.clone(), format!("{chat}/v1/chat/completions"));
            let key = keys[number % keys.len()].clone();
            tokio::spawn(async move {
                let mut answers = Answers::new();
                for turn in number.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Whether a request succeeds is not the question; only who gets no answer at all waits a little.
                    let answer = ask(&http, &url, &key, turn).await;
                    if answer.is_err() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    *answers.entry(answer.unwrap_or_else(|error| error)).or_default() += 1;
                }
                answers
            })
        });
        let clients = clients.collect();
        let stripe = tokio::spawn(tell(http.clone(), format!("{billing}/stripe/webhooks"), stop.clone()));
        Self { stop, clients, stripe }
    }

    /// Lets all requests end; how they did, and the events that were acknowledged.
    ///
    /// # Errors
    /// When a client panicked.
    pub async fn end(self) -> Result<(Answers, Vec<String>)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Answers::new();
        for client in join_all(self.clients).await {
            for (answer, times) in client? {
                *answers.entry(answer).or_default() += times;
            }
        }
        Ok((answers, self.stripe.await?))
    }
}

/// One request in eight streams for two seconds: longer than what a killed process may leave unbilled.
async fn ask(http: &Client, url: &str, key: &str, turn: usize) -> Result<String, String> {
    let tokens = if turn % 8 == 2 { 400 } else { 24 };
    let body = json!({"model": "sim-small", "max_completion_tokens": tokens, "stream": turn.is_multiple_of(2),
        "messages": [{"role": "user", "content": format!("Say something about {turn}")}]});
    let tags = if turn.is_multiple_of(3) { "drill, third" } else { "drill" };
    let request = http.post(url).bearer_auth(key).header("x-trivet-tags", tags).json(&body).send();
    let mut answer = request.await.map_err(|_| "no answer".to_owned())?;
    if !answer.status().is_success() {
        return Err(answer.status().as_u16().to_string());
    }
    let mut chunks = 0;
    while answer.chunk().await.map_err(|_| "broken off".to_owned())?.is_some() {
        chunks += 1;
        if turn.is_multiple_of(5) && chunks == 3 {
            return Ok("left".to_owned());
        }
    }
    Ok("complete".to_owned())
}

/// Sends events until each is acknowledged, as Stripe does; each twice.
async fn tell(http: Client, url: String, stop: Arc<AtomicBool>) -> Vec<String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = format!("evt_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        for _ in 0..2 {
            while !stop.load(Ordering::Relaxed) {
                if send(&http, &url, &id).await.is_ok() {
                    acknowledged.push(id.clone());
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    acknowledged
}

async fn send(http: &Client, url: &str, id: &str) -> Result<()> {
    let body = json!({"id": id, "object": "event", "type": "payment_intent.created", "livemode": false, "created": 1,
        "api_version": "2026-09-30.endive", "data": {"object": {"id": "cus_1"}}})
    .to_string();
    let time = chassis::Clock::system().now().timestamp();
    let key = hmac::Key::new(hmac::HMAC_SHA256, WEBHOOK_SECRET.as_bytes());
    let tag = hmac::sign(&key, format!("{time}.{body}").as_bytes());
    let tag = tag.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let request = http.post(url).header("stripe-signature", format!("t={time},v1={tag}")).header("content-type", "application/json");
    request.body(body).send().await?.error_for_status()?;
    Ok(())
}
