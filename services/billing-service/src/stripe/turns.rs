//! What is done from time to time: by one replica, whichever comes first.

use std::time::Duration;

use chrono::TimeDelta;

use crate::error::Error;
use crate::state::AppState;

/// Takes the turn of a task, if it has come; the next one is after `pause`. It is noted before anything is done, so that nobody
/// else does the same, and a task that fails is not done again at once.
pub(crate) async fn take(state: &AppState, name: &str, pause: Duration) -> Result<bool, Error> {
    let now = state.clock.now();
    let next = now + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
    let taken = sqlx::query!("update stripe_turns set next_at = $3 where name = $1 and next_at <= $2", name, now, next);
    Ok(taken.execute(&state.pool).await?.rows_affected() == 1)
}

/// The next turn is so much later than now.
pub(crate) async fn put_off(state: &AppState, name: &str, pause: Duration) -> Result<(), Error> {
    let next = state.clock.now() + TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
    sqlx::query!("update stripe_turns set next_at = $2 where name = $1", name, next).execute(&state.pool).await?;
    Ok(())
}

/// The turn was not enough: the next one is now.
pub(super) async fn take_back(state: &AppState, name: &str) -> Result<(), Error> {
    sqlx::query!("update stripe_turns set next_at = $2 where name = $1", name, state.clock.now()).execute(&state.pool).await?;
    Ok(())
}
