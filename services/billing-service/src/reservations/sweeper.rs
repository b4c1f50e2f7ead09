//! Ends holds whose deadline has passed: the process that held them is dead. The hold goes back, and one usage row says so [B-42].

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use contracts::ReservationId;
use contracts::usage::CountedBy;
use tokio_util::sync::CancellationToken;

use super::store::{find, release, resolve};
use crate::error::Error;
use crate::state::AppState;
use crate::usage;

const BATCH: i64 = 100;

/// Sweeps until the token is cancelled.
pub async fn sweep_until(state: &AppState, every: Duration, stop: &CancellationToken) {
    keep_running("reservation-sweeper", stop, every, || async {
        let ended = sweep(state).await?;
        if ended > 0 {
            metrics::counter!("billing_reservations_abandoned_total").increment(ended);
            tracing::warn!(reservations = ended, "holds of dead processes were given back");
        }
        Ok(())
    })
    .await;
}

/// Ends the holds that are over; returns how many. Any number of replicas may sweep at once.
///
/// # Errors
/// The database's.
pub async fn sweep(state: &AppState) -> Result<u64, Error> {
    let expired = sqlx::query_scalar!(
        "select id from reservations where state = 'held' and expires_at <= $1 order by expires_at limit $2",
        state.clock.now(),
        BATCH
    )
    .fetch_all(&state.pool)
    .await?;
    let mut ended = 0;
    for id in expired {
        let id = ReservationId::from_uuid(id);
        let abandoned: Result<bool, Error> = in_transaction!(state.pool, |transaction| {
            // Settled or swept by somebody else since it was read: theirs.
            let Some(held) = find(transaction, id).await?.filter(|held| held.state == "held") else { return Ok(false) };
            release(state, transaction, &held).await?;
            resolve(state, transaction, id, "abandoned").await?;
            usage::record_abandoned(state, transaction, &held, CountedBy::Abandoned).await?;
            Ok(true)
        });
        ended += u64::from(abandoned?);
    }
    Ok(ended)
}
