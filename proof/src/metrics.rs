//! What billing-service says of the requests that it settled for dead processes, over all the processes that it was. What a process
//! counted and nobody read before it was killed is lost, as it is to Prometheus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use reqwest::Client;
use tokio::task::JoinHandle;

/// What the names of the counters begin with.
const ABANDONED: &str = "billing_flights_abandoned";
const PAUSE: Duration = Duration::from_millis(100);

/// Reads counters until it is told to end.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Counters>,
}

impl Watch {
    /// Begins, at this base URL of a private listener.
    #[must_use]
    pub fn begin(http: &Client, base: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (http, url, ended) = (http.clone(), format!("{base}/metrics"), stop.clone());
        let task = tokio::spawn(async move {
            let mut counters = Counters::default();
            loop {
                // What was there at the end is read once more.
                let is_last = ended.load(Ordering::Relaxed);
                if let Ok(text) = read(&http, &url).await {
                    counters.see(&text);
                }
                if is_last {
                    return counters;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { stop, task }
    }

    /// The sums, by name and labels.
    ///
    /// # Errors
    /// When the reader panicked.
    pub async fn end(self) -> Result<BTreeMap<String, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?.sums)
    }
}

async fn read(http: &Client, url: &str) -> reqwest::Result<String> {
    http.get(url).send().await?.error_for_status()?.text().await
}

/// Counters that begin anew with each process.
#[derive(Debug, Default)]
struct Counters {
    last: BTreeMap<String, u64>,
    sums: BTreeMap<String, u64>,
}

impl Counters {
    fn see(&mut self, text: &str) {
        let now: BTreeMap<String, u64> = text
            .lines()
            .filter(|line| line.starts_with(ABANDONED))
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
            .collect();
        for (series, value) in &now {
            let before = self.last.get(series).copied().unwrap_or(0);
            *self.sums.entry(series.clone()).or_default() += value.checked_sub(before).unwrap_or(*value);
        }
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_counted_is_kept_when_the_next_one_begins_anew() {
        let mut counters = Counters::default();
        for text in
            ["a 1\nbilling_flights_abandoned_total{checkpoint=\"none\"} 2", "", "billing_flights_abandoned_total{checkpoint=\"none\"} 1"]
        {
            counters.see(text);
        }
        counters.see("billing_flights_abandoned_total{checkpoint=\"none\"} 4");
        assert_eq!(counters.sums, BTreeMap::from([("billing_flights_abandoned_total{checkpoint=\"none\"}".to_owned(), 6)]));
    }
}
