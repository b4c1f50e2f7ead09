//! Leases that ended long ago are taken out; an organization's last one stays, from which its epochs go on.

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Error;
use crate::state::AppState;

/// For so long a lease is kept after its end. Redis forgets a request in flight three days after it was admitted; what is told later than that, as
/// a message that had been set aside, finds no lease and is paid as on one that ended: nothing is held for it any more.
const KEPT: TimeDelta = TimeDelta::days(7);
/// Leases that are looked at in one transaction.
const BATCH: i32 = 1_000;
/// Transactions of one turn: more than ended in the hour between two turns, and the other kinds have theirs when years of leases go.
const MOST: usize = 5_000;

/// Takes out what is too old, or a part of it where that is much; ends early when the token is cancelled. Any number of replicas may do it at once.
///
/// # Errors
/// The database's.
pub async fn keep(state: &AppState, stop: &CancellationToken) -> Result<(), Error> {
    let before = state.clock.now() - KEPT;
    let (mut after, mut gone) = (Uuid::nil(), 0);
    for _ in 0..MOST {
        if stop.is_cancelled() {
            break;
        }
        let batch = sqlx::query!(r#"select seen as "seen!", last, taken as "taken!" from leases_retire($1, $2, $3)"#, after, before, BATCH);
        let batch = batch.fetch_one(&state.pool).await?;
        gone += batch.taken;
        // Those that stay are passed over once in a turn.
        let Some(last) = batch.last.filter(|_| batch.seen == i64::from(BATCH)) else { break };
        after = last;
    }
    if gone > 0 {
        tracing::info!(leases = gone, "leases that ended long ago were taken out");
    }
    Ok(())
}
