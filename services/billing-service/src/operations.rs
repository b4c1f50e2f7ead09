//! How the service is doing: what is measured from outside the requests, on `/metrics`, in the terminal (`billing-service status`) and for
//! operators by HTTP. Each measure has an entry in `docs/operations/RUNBOOK.md`; a test of the repository holds the two together.

mod gauges;
mod readings;
mod report;

use std::time::Duration;

use chassis::postgres::keep_running;
use tokio_util::sync::CancellationToken;

use crate::state::AppState;

pub use gauges::{GAUGES, Gauge, Limit};
pub use readings::{Reading, read};
pub use report::{Line, Status, get, status};

/// Between two readings; each counts a few rows along indexes made for it.
const EVERY: Duration = Duration::from_secs(30);

/// Sets the gauges until the token is cancelled. Each replica sets all of them, to the same values: take the maximum.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    for gauge in GAUGES {
        metrics::describe_gauge!(gauge.name, gauge.unit, gauge.help);
    }
    let before = tokio::sync::Mutex::new(Vec::new());
    keep_running("operations", stop, EVERY, || async {
        let now = read(state).await?;
        let mut before = before.lock().await;
        for gone in before.iter().filter(|old: &&Reading| !now.iter().any(|new| new.is_of(old))) {
            gone.set(0);
        }
        for reading in &now {
            reading.set(reading.value);
        }
        *before = now;
        Ok(())
    })
    .await;
}
