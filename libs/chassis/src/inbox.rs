//! The inbox: what came from elsewhere has its effect once. The claim is written in the transaction of the effect, so that
//! neither can be without the other [B-10, B-14].

use chrono::{DateTime, Utc};
use sqlx::{Postgres, Transaction};

/// Claims an event of a source; true the first time. A second transaction that claims the same waits for the first and then
/// gets false, or true when the first was rolled back.
///
/// # Errors
/// The database's.
pub async fn claim(
    transaction: &mut Transaction<'_, Postgres>,
    source: &str,
    event_id: &str,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let claimed = sqlx::query("insert into _inbox (source, event_id, received_at) values ($1, $2, $3) on conflict do nothing")
        .bind(source)
        .bind(event_id)
        .bind(now)
        .execute(&mut **transaction)
        .await?;
    Ok(claimed.rows_affected() == 1)
}
