//! Sessions that have been over for long are removed, and their refresh tokens before them.
//!
//! While a session lives all its tokens are kept, used or not: a second use is recognized by the row of the first [I-51]. When it is over each
//! of them is refused, known or unknown; the rows are kept for a while for whoever looks into what happened.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::housekeeping::BATCHES;

/// How long a session is kept after it was ended or ran out.
const KEPT: TimeDelta = TimeDelta::days(30);
/// Rows that one statement removes at most. The statements say it themselves: a limit that is a parameter is planned for as a tenth of all rows,
/// and for so many a table is read from one end to the other.
const BATCH: u64 = 1_000;

/// Removes what is too old, in batches, and no more than a bounded number of them. Any number of replicas may do it at once: each passes over
/// what another is removing.
///
/// # Errors
/// The database's; the batches before stay removed.
pub async fn keep(pool: &PgPool, now: DateTime<Utc>, stop: &CancellationToken) -> Result<(), sqlx::Error> {
    let before = now - KEPT;
    let (mut all_tokens, mut all_sessions) = (0, 0);
    for _ in 0..BATCHES {
        if stop.is_cancelled() {
            break;
        }
        let tokens = remove_tokens(pool, before).await?;
        all_tokens += tokens;
        // Sessions go when the first thousand of them have no tokens left.
        if tokens == BATCH {
            continue;
        }
        let sessions = remove_sessions(pool, before).await?;
        all_sessions += sessions;
        if tokens + sessions == 0 {
            break;
        }
    }
    if all_tokens + all_sessions > 0 {
        tracing::info!(sessions = all_sessions, refresh_tokens = all_tokens, "sessions that have been over for long were removed");
    }
    Ok(())
}

/// Removes a batch of the tokens of those sessions that were over first; returns how many.
async fn remove_tokens(pool: &PgPool, before: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query!(
        "delete from refresh_tokens where token_sha256 = any (array(
             select t.token_sha256
             from (select id from sessions where least(expires_at, revoked_at) < $1 order by least(expires_at, revoked_at) limit 1000) s
             cross join lateral (select token_sha256 from refresh_tokens where session_id = s.id limit 1000 for update skip locked) t
             limit 1000))",
        before
    )
    .execute(pool)
    .await?;
    Ok(removed.rows_affected())
}

/// Removes those of the first sessions that have no token any more; returns how many.
async fn remove_sessions(pool: &PgPool, before: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query!(
        "delete from sessions where id = any (array(
             select s.id
             from (select id from sessions where least(expires_at, revoked_at) < $1 order by least(expires_at, revoked_at)
                   limit 1000 for update skip locked) s
             where not exists (select from refresh_tokens where session_id = s.id)))",
        before
    )
    .execute(pool)
    .await?;
    Ok(removed.rows_affected())
}
