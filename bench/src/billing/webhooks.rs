//! How long Stripe waits for an acknowledgement, at a rate that does not wait for it.

use std::time::{Duration, Instant};

use anyhow::Result;
use chassis::Clock;
use futures::future::try_join_all;
use reqwest::Client;
use ring::hmac;
use serde_json::json;

use super::{Figure, number};

/// What the events are signed with.
pub const SECRET: &str = "whsec_bench";

/// Sends so many events a second.
///
/// # Errors
/// When one is not acknowledged.
pub async fn acknowledgements(http: &Client, billing: &str, rate: u64, time: Duration) -> Result<Vec<Figure>> {
    let (url, began) = (format!("{billing}/stripe/webhooks"), Instant::now());
    let count = rate * time.as_secs();
    let sent = (0..count).map(|number| {
        let (http, url) = (http.clone(), url.clone());
        async move {
            tokio::time::sleep_until((began + Duration::from_micros(number * 1_000_000 / rate)).into()).await;
            let started = Instant::now();
            send(&http, &url, number).await?;
            anyhow::Ok(u64::try_from(started.elapsed().as_micros())?)
        }
    });
    let mut times = try_join_all(sent).await?;
    times.sort_unstable();
    let at = |hundredth: usize| number(times[times.len() * hundredth / 100]) / 1000.0;
    Ok(vec![
        Figure::new(format!("acknowledgement of an event, p50 at {rate}/s"), at(50), "ms"),
        Figure::new(format!("acknowledgement of an event, p99 at {rate}/s"), at(99), "ms"),
    ])
}

async fn send(http: &Client, url: &str, number: u64) -> Result<()> {
    let body = json!({"id": format!("evt_{number}"), "object": "event", "type": "invoice.paid", "livemode": false, "created": 1,
        "api_version": "x", "data": {"object": {"id": format!("in_{number}"), "lines": vec!["a line of an invoice"; 100]}}})
    .to_string();
    let time = Clock::system().now().timestamp();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), format!("{time}.{body}").as_bytes());
    let tag = tag.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let request = http.post(url).header("content-type", "application/json").header("stripe-signature", format!("t={time},v1={tag}"));
    request.body(body).send().await?.error_for_status()?;
    Ok(())
}
