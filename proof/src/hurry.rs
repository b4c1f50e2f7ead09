//! What was noted for a later try is due soon: a minute is long in a drill, and nothing may depend on it.

use anyhow::Result;
use sqlx::postgres::PgPool;

/// What waits, where, and the seconds within which the next try of something lies that was just taken up. A program that takes something up
/// puts it off, in case it dies of it: so long as it may be alive, for some seconds, that is left alone, or each would be tried ten times in
/// a second. An event is put off by 25 seconds and up to a quarter of that, and by more only from its sixth try on. The last number is how
/// long it waits all the same: an event has twenty tries, and what it needs may come with another that is found when it is two minutes old.
const WAITING: [(&str, &str, (u8, u8), u8); 3] = [
    ("stripe_events", "state = 'received'", (22, 32), 10),
    ("intents", "sent_at is null", (57, 61), 0),
    ("stripe_customers", "customer_id is null", (57, 61), 0),
];

/// Has it tried sooner.
///
/// # Errors
/// The database's.
pub async fn up(pool: &PgPool) -> Result<()> {
    for sooner in sooner() {
        sqlx::query(sqlx::AssertSqlSafe(sooner)).execute(pool).await?;
    }
    Ok(())
}

fn sooner() -> impl Iterator<Item = String> {
    WAITING.into_iter().map(|(table, condition, (from, until), sooner)| {
        format!(
            "update {table} set next_attempt_at = now() + interval '{sooner} seconds' where {condition}
               and next_attempt_at > now() + interval '{sooner} seconds' + interval '2 seconds'
               and next_attempt_at - now() not between interval '{from} seconds' and interval '{until} seconds'"
        )
    })
}
