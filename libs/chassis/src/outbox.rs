//! The outbox: facts are written in the transaction that makes them true and published afterwards, at least once, in order
//! per organization. Receivers recognize repetitions by the event's id (see [`inbox`](crate::inbox)).

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Row, Transaction};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::postgres::keep_running;
use crate::redis::Redis;
use crate::streams::publish;
use crate::telemetry::current_traceparent;

const BATCH: i64 = 100;
/// How long a fact waits when nobody woke the relay (it was written by another replica).
const POLL: Duration = Duration::from_millis(200);
/// Key of the advisory lock that keeps one relay publishing at a time, which is what keeps the order.
const LOCK: i64 = 0x6f75_7462_6f78;
/// Entries that a stream keeps, some 30 MB of Redis. Whoever was away for longer does not hear of the rest, and not all of it can be read elsewhere:
/// what an organization may do is asked anew within a minute, and a wallet is made at first contact; but the name and address of a new organization
/// come here alone, and whoever starts learns here what was revoked while tokens of before may live. So it is many.
const KEEP: usize = 100_000;

/// A fact to publish.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Its id, by which receivers recognize it.
    pub id: Uuid,
    /// What happened, such as `organization.created`.
    pub kind: &'static str,
    /// Whose fact it is; facts of one organization keep their order.
    pub organization_id: Option<Uuid>,
    /// The fact.
    pub payload: Value,
    /// When it became true.
    pub occurred_at: DateTime<Utc>,
}

/// Writes a fact into the transaction that makes it true, with the current trace.
///
/// # Errors
/// The database's.
pub async fn enqueue(transaction: &mut Transaction<'_, Postgres>, event: &NewEvent) -> Result<(), sqlx::Error> {
    sqlx::query("insert into _outbox (id, kind, organization_id, payload, occurred_at, traceparent) values ($1, $2, $3, $4, $5, $6)")
        .bind(event.id)
        .bind(event.kind)
        .bind(event.organization_id)
        .bind(&event.payload)
        .bind(event.occurred_at)
        .bind(current_traceparent())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Publishes the outbox of one database to one stream. Any number of replicas may run one.
#[derive(Debug, Clone)]
pub struct Relay {
    pool: PgPool,
    redis: Redis,
    stream: &'static str,
    clock: Clock,
    wake: Arc<Notify>,
}

impl Relay {
    /// A relay from the database to the stream.
    #[must_use]
    pub fn new(pool: PgPool, redis: Redis, stream: &'static str, clock: Clock) -> Self {
        Self { pool, redis, stream, clock, wake: Arc::default() }
    }

    /// Says that something was committed: the relay looks at once instead of at its next poll.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Publishes until the token is cancelled.
    pub async fn run(&self, stop: &CancellationToken) {
        keep_running("outbox-relay", stop, POLL, || async {
            while !stop.is_cancelled() {
                if self.publish_batch().await? < BATCH {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep(POLL) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
            Ok(())
        })
        .await;
        // What was committed by the last requests; another replica, or the next start, would find it later.
        if let Err(error) = self.publish_batch().await {
            tracing::warn!(error.message = format!("{error:#}"), "the last facts were not published; the next start will");
        }
    }

    /// Publishes what is unsent, oldest first; returns how many were. A relay that finds another at work publishes none.
    ///
    /// # Errors
    /// The database's or Redis's; what was published and not marked is published again.
    pub async fn publish_batch(&self) -> anyhow::Result<i64> {
        let mut transaction = self.pool.begin().await?;
        let alone: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)").bind(LOCK).fetch_one(&mut *transaction).await?;
        if !alone {
            return Ok(0);
        }
        let rows = sqlx::query(
            "select id, kind, organization_id, payload::text, occurred_at, traceparent from _outbox
             where sent_at is null order by position limit $1 for update skip locked",
        )
        .bind(BATCH)
        .fetch_all(&mut *transaction)
        .await?;
        if !rows.is_empty() {
            crate::step!("outbox.read");
        }
        for row in &rows {
            let id: Uuid = row.try_get(0)?;
            let organization: Option<Uuid> = row.try_get(2)?;
            let occurred_at: DateTime<Utc> = row.try_get(4)?;
            let traceparent: Option<String> = row.try_get(5)?;
            let fields = [
                ("id", id.to_string()),
                ("kind", row.try_get(1)?),
                ("organization_id", organization.map(|id| id.to_string()).unwrap_or_default()),
                ("payload", row.try_get(3)?),
                ("occurred_at", occurred_at.to_rfc3339()),
                ("traceparent", traceparent.unwrap_or_default()),
            ];
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            publish(&self.redis, self.stream, &fields, Some(KEEP)).await?;
            crate::step!("outbox.published");
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        sqlx::query("update _outbox set sent_at = $1 where id = any($2)")
            .bind(self.clock.now())
            .bind(&ids)
            .execute(&mut *transaction)
            .await?;
        if !rows.is_empty() {
            crate::step!("outbox.marked");
        }
        transaction.commit().await?;
        if !rows.is_empty() {
            crate::step!("outbox.committed");
        }
        Ok(i64::try_from(rows.len())?)
    }
}

/// Removes facts that were published before `before`.
///
/// # Errors
/// The database's.
pub async fn prune(pool: &PgPool, before: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query("delete from _outbox where sent_at < $1").bind(before).execute(pool).await?.rows_affected())
}
