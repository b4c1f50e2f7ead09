//! Events that came before the meter that counts them: counted in batches, in the order of their keys. Where a meter has come to stands in its
//! row; an event that comes meanwhile counts at once when its key is one that is passed, and with its batch when it is not. So each counts
//! once, however long it takes, and whoever compares rollups with events sees as many in both.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::{is_unavailable, keep_running};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::aside;
use crate::error::Error;
use crate::metering::{MeterId, lock_meters};
use crate::state::AppState;

const TASK: &str = "earlier-events";
const POLL: Duration = Duration::from_secs(1);
/// Events, of whatever type, that are passed in one transaction at most: no event of the organization is taken meanwhile.
const BATCH: i32 = 2_000;

/// Counts until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    keep_running(TASK, stop, POLL, || async {
        while !stop.is_cancelled() && step(state).await? {}
        Ok(())
    })
    .await;
}

/// Counts a batch for the meter whose turn it is: the one that had none for longest. False when there is nothing to do, or another replica
/// does it. A meter that fails keeps no other from its turn.
///
/// # Errors
/// When the database cannot be reached.
pub async fn step(state: &AppState) -> Result<bool, Error> {
    let waiting = sqlx::query!(
        "select id, organization_id, batch from meters where not is_complete and (next_at is null or next_at <= $1)
         order by next_at nulls first, created_at limit 1",
        state.clock.now()
    );
    let Some(meter) = waiting.fetch_optional(&state.pool).await? else { return Ok(false) };
    let counted = next(state, meter.id, OrganizationId::from_uuid(meter.organization_id), meter.batch).await;
    let Err(error) = &counted else { return counted };
    let Some(pause) = aside::pause(TASK, meter.id, error) else { return counted };
    // Events may be so large that fewer of them are as many as can be counted in time.
    sqlx::query!(
        "update meters set next_at = $2, batch = greatest(batch / 8, 1) where id = $1 and not is_complete",
        meter.id,
        state.clock.now() + pause
    )
    .execute(&state.pool)
    .await?;
    Ok(true)
}

/// False when another replica is at it.
async fn next(state: &AppState, meter: Uuid, organization: OrganizationId, batch: i32) -> Result<bool, Error> {
    in_transaction!(state.pool, |transaction| {
        // A lock of its own, and before every other one: whoever makes a meter may wait for the row of one that is counted.
        let mine = sqlx::query_scalar!(
            r#"select pg_try_advisory_xact_lock(hashtextextended('earlier events ' || $1::text, 0)) as "mine!""#,
            meter.to_string()
        );
        if !mine.fetch_one(&mut **transaction).await? {
            return Ok(false);
        }
        lock_meters(transaction, organization).await?;
        let grown = batch.saturating_mul(2).min(BATCH);
        sqlx::query!("update meters set next_at = $2, batch = $3 where id = $1", meter, state.clock.now(), grown)
            .execute(&mut **transaction)
            .await?;
        count(transaction, organization, MeterId::from_uuid(meter), batch.into()).await?;
        Ok(true)
    })
}

/// Counts the first events for a meter that is being made; whether those are all. What cannot be counted while somebody waits for the answer is
/// left to [`step`].
///
/// # Errors
/// As [`count`].
pub async fn begin(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId, meter: MeterId) -> Result<bool, Error> {
    sqlx::query!("savepoint earlier").execute(&mut **transaction).await?;
    sqlx::query!("set local statement_timeout = '1s'").execute(&mut **transaction).await?;
    let counted = match count(transaction, organization, meter, BATCH.into()).await {
        Err(Error::Database(error)) if is_unavailable(&error) => {
            sqlx::query!("rollback to savepoint earlier").execute(&mut **transaction).await?;
            return Ok(false);
        }
        counted => counted?,
    };
    sqlx::query!("release savepoint earlier").execute(&mut **transaction).await?;
    sqlx::query!("set local statement_timeout to default").execute(&mut **transaction).await?;
    Ok(counted)
}

/// Counts the next events for a meter, at most so many; whether all are counted. The organization's meters must be
/// locked.
///
/// # Errors
/// The database's.
pub async fn count(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    meter: MeterId,
    most: i64,
) -> Result<bool, Error> {
    // No month is taken out meanwhile, of which a part would be counted. And what is estimated of a part of a key is far too much: it would
    // be compiled for longer than it takes.
    sqlx::query!("select pg_advisory_xact_lock_shared(hashtextextended('metered_retired', 0))").execute(&mut **transaction).await?;
    sqlx::query!("set local jit = off").execute(&mut **transaction).await?;
    let before = sqlx::query!(
        r#"select counted_source as "source!", counted_id as "id!" from meters where id = $1 and not is_complete"#,
        meter.uuid()
    );
    // Another replica has ended it.
    let Some(before) = before.fetch_optional(&mut **transaction).await? else { return Ok(true) };
    let last = sqlx::query!(
        r#"with keys as materialized (
             select source, id from metered_events where organization_id = $1 and (source, id) > ($2, $3) order by source, id limit $4)
           select source, id, (select count(*) from keys) as "keys!" from keys order by source desc, id desc limit 1"#,
        organization.uuid(),
        before.source,
        before.id,
        most
    );
    let last = last.fetch_optional(&mut **transaction).await?;
    let is_complete = last.as_ref().is_none_or(|last| last.keys < most);
    let (source, id) = last.map_or((before.source.clone(), before.id.clone()), |last| (last.source, last.id));
    sqlx::query!(
        "update meters set is_complete = $2, counted_source = $3, counted_id = $4 where id = $1",
        meter.uuid(),
        is_complete,
        source,
        id
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!(
        "insert into meter_deltas (meter_id, hour, groups, events, amount, most, value)
         select meter_id, hour, groups, count(*), coalesce(sum(amount), 0), max(amount), value from meter_contributions
         where organization_id = $1 and meter_id = $2 and (source, id) > ($3, $4) and (source, id) <= ($5, $6)
           and hour >= (select metered_since())
         group by meter_id, hour, groups, value",
        organization.uuid(),
        meter.uuid(),
        before.source,
        before.id,
        source,
        id
    )
    .execute(&mut **transaction)
    .await?;
    Ok(is_complete)
}
