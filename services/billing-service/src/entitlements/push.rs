//! Tells the other services that what an organization may do has changed: they ask again.

use std::time::Duration;

use chassis::idempotency;
use chassis::outbox::{self, Relay};
use chassis::postgres::keep_running;
use chrono::{DateTime, TimeDelta, Utc};
use contracts::entitlements::BILLING_STREAM;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::state::AppState;

const HOUSEKEEPING: Duration = Duration::from_hours(1);
/// How long what was published, and what was answered, is kept.
const KEEP: TimeDelta = TimeDelta::days(30);

/// Publishes this service's facts.
#[must_use]
pub fn relay(state: &AppState) -> Relay {
    Relay::new(state.pool.clone(), state.redis.clone(), BILLING_STREAM, state.clock.clone())
}

/// Forgets facts that were published, and answers that were recorded, a month ago [B-12].
pub async fn housekeeping(state: &AppState, stop: &CancellationToken) {
    keep_running("housekeeping", stop, HOUSEKEEPING, || async { Ok(forget(&state.pool, state.clock.now() - KEEP).await?) }).await;
}

/// Forgets what was published or answered before an instant; one kind that cannot be forgotten does not keep the other.
///
/// # Errors
/// The database's for the first kind that could not be forgotten; the other was tried, and each failure is logged.
pub async fn forget(pool: &PgPool, before: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let facts = outbox::prune(pool, before).await.map(drop);
    let answers = idempotency::prune(pool, before).await.map(drop);
    let mut first = Ok(());
    for (kind, forgotten) in [("published facts", facts), ("answers", answers)] {
        if let Err(error) = &forgotten {
            tracing::error!(housekeeping.kind = kind, error.message = %error, "what is old of one kind was not removed");
        }
        first = first.and(forgotten);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn facts_or_answers_that_cannot_be_forgotten_do_not_keep_the_others_from_it() {
        let database = testkit::postgres::database(crate::MIGRATIONS).await;
        let execute = async |statement: &'static str| sqlx::query(statement).execute(&database.owner).await.map(drop);
        let before = "2030-01-01T00:00:00Z".parse().unwrap();
        for (kind, refuse, allow) in [
            ("facts", "revoke delete on _outbox from billing_app", "grant delete on _outbox to billing_app"),
            ("answers", "revoke delete on _idempotency from billing_app", "grant delete on _idempotency to billing_app"),
        ] {
            execute(
                "insert into _outbox (id, kind, payload, occurred_at, sent_at)
                 values (gen_random_uuid(), 'x', '{}', '2029-01-01T00:00:00Z', '2029-01-01T00:00:00Z')",
            )
            .await
            .unwrap();
            execute(
                "insert into _idempotency (scope, key, request_hash, status, body, created_at)
                 values ('x', 'x', '', 0, '', '2029-01-01T00:00:00Z')",
            )
            .await
            .unwrap();
            execute(refuse).await.unwrap();
            forget(&database.pool, before).await.unwrap_err();
            let left = "select string_agg(kind, ' ') from (
                            select 'facts' as kind from _outbox union all select 'answers' from _idempotency) as kinds";
            let left: Option<String> = sqlx::query_scalar(left).fetch_one(&database.owner).await.unwrap();
            assert_eq!(left.as_deref(), Some(kind));
            execute(allow).await.unwrap();
            forget(&database.pool, before).await.unwrap();
        }
    }
}
