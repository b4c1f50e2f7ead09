//! Waiting for what happens in the background, by asking until it has.

use std::future::Future;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
/// Before the second question; doubled with each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer. A sleep between the questions is no synchronization: the answer decides.
///
/// # Panics
/// When there is none after half a minute.
pub async fn eventually<T, Fut: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> Fut) -> T {
    let (started, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < LIMIT, "{what} did not happen within {LIMIT:?}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
