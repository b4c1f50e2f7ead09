//! The ledger is checked once a day, by one replica at a time [B-36]: what `ledger verify` does, without anybody who asks for it. How much
//! each check found is kept, so that every replica tells the last one's, also after a restart. Nothing is changed: a repair is somebody's
//! decision.

use std::time::Duration;

use chassis::postgres::{PostgresConfig, connect, keep_running};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::verify::{self, Summary};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::turns;

const TURN: &str = "ledger-checks";
/// When a check begins anew that failed, or whose replica was stopped: not each minute, for it reads all of the ledger.
const AFTER_FAILURE: Duration = Duration::from_hours(3);
/// Between looks whether it is time.
const POLL: Duration = Duration::from_mins(1);
/// Lines of one check that are logged; a ledger with more is looked at with `ledger verify`, which tells all.
const LOGGED: usize = 20;

/// Checks until the token is cancelled; with a pause of zero, never.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let pause = state.config.ledger_check.0;
    if pause.is_zero() {
        return stop.cancelled().await;
    }
    keep_running("ledger-checks", stop, POLL, || async {
        step(state, pause).await?;
        Ok(())
    })
    .await;
}

/// Checks if its turn has come, and logs the first lines of what is wrong; the next turn is after `pause`. None when it is not time, or
/// another replica was first.
///
/// # Errors
/// The database's. Nothing is kept then, and the next turn is hours later: a check that fails does not read a large ledger each minute.
pub async fn step(state: &AppState, pause: Duration) -> Result<Option<Summary>, Error> {
    if !turns::take(state, TURN, pause.min(AFTER_FAILURE)).await? {
        return Ok(None);
    }
    // A connection of its own, as a command has: it is busy for as long as the ledger is large, and requests need those of the service.
    let pool = connect(&PostgresConfig { max_connections: 1, ..state.config.postgres.clone() }, "billing-ledger-check")?;
    let mut lines = 0_usize;
    let checked = check(state, &pool, None, |line| {
        lines += 1;
        if lines <= LOGGED {
            tracing::error!(ledger.difference = line, "the ledger does not hold what it promises");
        }
    })
    .await;
    pool.close().await;
    let summary = checked?;
    turns::put_off(state, TURN, pause).await?;
    if summary.differences > LOGGED {
        tracing::error!(ledger.differences = summary.differences, "more is wrong than is logged: `ledger verify` tells all");
    }
    Ok(Some(summary))
}

/// Checks as [`verify::check`] does, on these connections, and keeps how much it found: the measure says what the last check found, whoever
/// asked for it, so that it does not wait for the next day when something was mended.
///
/// # Errors
/// The database's. Nothing is kept then.
pub async fn check(state: &AppState, pool: &PgPool, expected: Option<&[u8]>, report: impl FnMut(String)) -> Result<Summary, Error> {
    let started_at = state.clock.now();
    let summary = verify::check(pool, expected, report).await?;
    sqlx::query!(
        "insert into ledger_checks (started_at, ended_at, transactions, seals, differences) values ($1, $2, $3, $4, $5)",
        started_at,
        state.clock.now(),
        i64::try_from(summary.sealed).unwrap_or(i64::MAX),
        summary.seals,
        i64::try_from(summary.differences).unwrap_or(i64::MAX)
    )
    .execute(pool)
    .await?;
    Ok(summary)
}
