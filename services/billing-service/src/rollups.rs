//! Sums by hour and day of what was used: kept up beside the writes, rebuilt from the rows at will, and always equal to them [B-61].
//!
//! A write adds what it changes to a table of deltas, where no two writers meet; a worker adds the deltas to the rollups. Who reads
//! takes both together, so that an answer is never behind the rows.

pub mod meters;
pub mod usage;

use chassis::postgres::keep_running;
use tokio_util::sync::CancellationToken;

use crate::state::AppState;

/// Deltas that are added in one transaction at most.
pub(crate) const BATCH: i64 = 5_000;
/// The advisory lock of those who add: one at a time is enough, and no two can wait for each other's rows.
pub(crate) const LOCK: i64 = 0x726f_6c6c_7570;

/// Adds deltas until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    keep_running("rollups", stop, state.config.usage.roll_up.0, || async {
        while meters::fold(&state.pool).await? {}
        while usage::fold(&state.pool).await? {}
        Ok(())
    })
    .await;
}
