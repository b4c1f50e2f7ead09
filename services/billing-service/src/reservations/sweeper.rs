//! Looks for holds whose deadline has passed and ends them, each in a transaction of its own.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use contracts::ReservationId;
use tokio_util::sync::CancellationToken;

use super::expiry::{end, note_ended, note_stuck};
use crate::error::Error;
use crate::state::AppState;

const BATCH: i64 = 100;

/// Sweeps until the token is cancelled.
pub async fn sweep_until(state: &AppState, every: Duration, stop: &CancellationToken) {
    keep_running("reservation-sweeper", stop, every, || async {
        loop {
            let ended = sweep(state).await?;
            note_ended(ended);
            if stop.is_cancelled() || ended == 0 {
                return Ok(());
            }
        }
    })
    .await;
}

/// Ends holds that are over, a hundred at most; returns how many. One that cannot be ended is passed over until the next sweep. Any number of
/// replicas may sweep at once.
///
/// # Errors
/// When the database is away.
pub async fn sweep(state: &AppState) -> Result<u64, Error> {
    let (mut ended, mut stuck) = (0, 0);
    loop {
        // Those that are stuck stay in front of the others.
        let expired = sqlx::query_scalar!(
            "select id from reservations where state = 'held' and expires_at <= $1 order by expires_at, id limit $2 offset $3",
            state.clock.now(),
            BATCH,
            stuck
        )
        .fetch_all(&state.pool)
        .await?;
        let all = i64::try_from(expired.len()).is_ok_and(|found| found < BATCH);
        for id in expired.into_iter().map(ReservationId::from_uuid) {
            match in_transaction!(state.pool, |transaction| { end(state, transaction, id).await }) {
                Ok(over) => ended += u64::from(over),
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => {
                    note_stuck(id, &error);
                    stuck += 1;
                }
            }
        }
        if all || ended > 0 {
            return Ok(ended);
        }
    }
}
