//! Sums by hour and day of what was used: kept up beside the writes, rebuilt from the rows at will, and always equal to them [B-61].
//!
//! A write adds what it changes to a table of deltas, where no two writers meet; a worker adds the deltas to the rollups. Who reads
//! takes both together, so that an answer is never behind the rows.

pub mod earlier;
pub mod meters;
pub mod spend;
pub mod usage;
mod verify;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Decision};
use crate::error::Error;
use crate::state::AppState;

pub use self::verify::differences;

/// The verb in the log of operators.
const ACTION: &str = "usage.rebuild";
/// Deltas that are added in one transaction at most.
pub(crate) const BATCH: i64 = 5_000;
/// The advisory lock of those who add: one at a time is enough, and no two can wait for each other's rows.
pub(crate) const LOCK: i64 = 0x726f_6c6c_7570;

/// Adds deltas until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    keep_running("rollups", stop, state.config.usage.roll_up.0, || async {
        // One kind that cannot be added does not keep the others.
        let meters = async {
            while meters::fold(&state.pool).await? {}
            Ok::<_, Error>(())
        };
        let usage = async {
            while usage::fold(&state.pool).await? {}
            Ok::<_, Error>(())
        };
        let spend = async {
            while spend::fold(&state.pool).await? {}
            Ok::<_, Error>(())
        };
        let added = tokio::join!(Box::pin(meters), Box::pin(usage), Box::pin(spend));
        Ok(added.0.and(added.1).and(added.2)?)
    })
    .await;
}

/// Makes all rollups anew from the rows, and logs who wanted it [B-78]. Answers are right all the while.
///
/// # Errors
/// A decision without a name or a reason; the database's.
pub async fn rebuild(state: &AppState, decision: &Decision) -> Result<(), Error> {
    decision.check()?;
    meters::rebuild(&state.pool).await?;
    in_transaction!(state.pool, |transaction| {
        usage::rebuild_in(transaction).await?;
        // Done anew whether or not it was done under this key before; logged once.
        if audit::earlier(transaction, decision, ACTION, None, &Value::Null).await?.is_some() {
            return Ok(());
        }
        let after = json!({"rebuilt": ["usage", "meters"]});
        let logged = audit::Change { action: ACTION, organization: None, request: &Value::Null, before: &Value::Null, after: &after };
        audit::record(state, transaction, decision, &logged).await
    })
}
