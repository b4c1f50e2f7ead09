//! A closed loop: so many clients, each of which asks again as soon as it has its answer.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use reqwest::Client;
use serde::Serialize;

/// Whom to ask, and for what.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name in the report.
    pub lane: &'static str,
    /// Base URL, without `/v1`.
    pub base: String,
    /// The bearer credential, where one is looked at.
    pub key: String,
    /// Whether the answer is streamed; then its first byte is what counts.
    pub stream: bool,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Who was asked.
    pub lane: &'static str,
    /// `whole` or `stream`.
    pub kind: &'static str,
    /// Clients at once.
    pub concurrency: usize,
    /// Which of the rounds.
    pub round: usize,
    /// Answers.
    pub requests: usize,
    /// Answers a second.
    pub rps: f64,
    /// Microseconds until the whole answer; for streams, until its first byte.
    pub p50_us: u64,
    /// The same.
    pub p99_us: u64,
}

impl Target {
    /// One request; microseconds.
    ///
    /// # Errors
    /// When the answer is not a completion: a figure over failures would be worthless.
    async fn ask(&self, http: &Client) -> Result<u64> {
        let body = format!(
            r#"{{"model":"sim-small","max_completion_tokens":16,"stream":{},"messages":[{{"role":"user","content":"Say something"}}]}}"#,
            self.stream
        );
        let url = format!("{}/v1/chat/completions", self.base);
        let started = Instant::now();
        let request = http.post(url).bearer_auth(&self.key).header("content-type", "application/json").body(body);
        let mut answer = request.send().await?.error_for_status()?;
        ensure!(answer.chunk().await?.is_some(), "an empty answer");
        let first = started.elapsed();
        while answer.chunk().await?.is_some() {}
        let counted = if self.stream { first } else { started.elapsed() };
        Ok(u64::try_from(counted.as_micros())?)
    }

    /// Asks with `concurrency` clients for `time`.
    ///
    /// # Errors
    /// When one request fails.
    pub async fn measure(&self, http: &Client, concurrency: usize, time: Duration, round: usize) -> Result<Measured> {
        let started = Instant::now();
        let clients = (0..concurrency).map(|_| async {
            let mut times = Vec::new();
            while started.elapsed() < time {
                times.push(self.ask(http).await?);
            }
            anyhow::Ok(times)
        });
        let times = try_join_all(clients).await?.into_iter().flatten().collect();
        let kind = if self.stream { "stream" } else { "whole" };
        Ok(summary(self.lane, kind, concurrency, round, times, started.elapsed()))
    }
}

/// What times of single requests come to.
#[must_use]
pub fn summary(lane: &'static str, kind: &'static str, concurrency: usize, round: usize, mut times: Vec<u64>, taken: Duration) -> Measured {
    times.sort_unstable();
    let at = |hundredth: usize| times.get(times.len() * hundredth / 100).or(times.last()).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "counts of a few thousand")]
    let rps = times.len() as f64 / taken.as_secs_f64();
    Measured { lane, kind, concurrency, round, requests: times.len(), rps, p50_us: at(50), p99_us: at(99) }
}
