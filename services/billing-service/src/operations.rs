//! How the service is doing: what is measured from outside the requests, on `/metrics`, in the terminal (`billing-service status`) and for
//! operators by HTTP. Each measure has an entry in `docs/operations/RUNBOOK.md`; a test of the repository holds the two together.

mod clock;
mod gauges;
mod readings;
mod report;
mod shown;
mod under_way;

use std::time::Duration;

use chassis::postgres::keep_running;
use tokio_util::sync::CancellationToken;

use crate::state::AppState;

pub use gauges::{GAUGES, Gauge, Limit, Part};
pub use readings::{Reading, read};
pub use report::{Line, Status, Unknown, get, status};
pub use shown::Shown;

/// Between two readings; each counts a few rows along indexes made for it.
const EVERY: Duration = Duration::from_secs(30);

/// Sets the gauges until the token is cancelled. Each replica sets all of them, to the same values but for its own clock: take the maximum.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    for gauge in GAUGES {
        metrics::describe_gauge!(gauge.name, gauge.unit, gauge.help);
    }
    let shown = Shown::default();
    keep_running("operations", stop, EVERY, || shown.refresh(state)).await;
}
