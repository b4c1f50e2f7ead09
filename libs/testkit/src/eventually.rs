//! Waiting for what happens in the background, by asking until it has.

use std::future::Future;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer. A sleep between the questions is no synchronization: the answer decides.
///
/// # Panics
/// When there is none after half a minute.
pub async fn eventually<T, Fut: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> Fut) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < LIMIT, "{what} did not happen within {LIMIT:?}");
        tokio::time::sleep(PAUSE).await;
    }
}
