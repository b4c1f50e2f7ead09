//! Rollups of what each person's requests, and those with a tag, were sold for, by day.

use std::time::Duration;

use chassis::in_transaction;
use chrono::{DateTime, Utc};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{BATCH, LOCK, Taken, begin, is_full};
use crate::error::Error;

/// Between two batches that are forgotten.
const BREATH: Duration = Duration::from_millis(100);
/// How often somebody else may be found at it before the rest waits for another hour.
const TRIES: u32 = 100;

/// Adds the first batch of deltas of each kind to the rollups; whether there may be more. Does nothing while another replica does it.
///
/// # Errors
/// The database's.
pub async fn fold(pool: &PgPool) -> Result<bool, Error> {
    let people = fold_people_after(pool, 0).await?;
    Ok(is_full(fold_tags_after(pool, 0).await?) || is_full(people))
}

/// Adds a batch of what people spent, of the deltas after an id; nothing while another replica does it.
pub(super) async fn fold_people_after(pool: &PgPool, after: i64) -> Result<Option<Taken>, Error> {
    in_transaction!(pool, |transaction| {
        if !begin(transaction, LOCK + 2, after).await? {
            return Ok(None);
        }
        let taken = sqlx::query_as!(
            Taken,
            r#"with taken as (delete from spend_deltas where ctid = any (array(
                   select ctid from spend_deltas where id > $2 order by id limit $1)) returning *),
                 rolled as (insert into spend_rollups as old (organization_id, user_id, currency, day, price_micros)
                   select organization_id, user_id, currency, day, sum(price_micros) from taken group by 1, 2, 3, 4
                   on conflict (organization_id, user_id, currency, day) do update set price_micros = old.price_micros + excluded.price_micros)
               select count(*) as "rows!", coalesce(max(id), 0) as "last!" from taken"#,
            BATCH,
            after
        );
        Ok(Some(taken.fetch_one(&mut **transaction).await?))
    })
}

/// The same of what had a tag.
pub(super) async fn fold_tags_after(pool: &PgPool, after: i64) -> Result<Option<Taken>, Error> {
    in_transaction!(pool, |transaction| {
        if !begin(transaction, LOCK + 2, after).await? {
            return Ok(None);
        }
        let taken = sqlx::query_as!(
            Taken,
            r#"with taken as (delete from tag_spend_deltas where ctid = any (array(
                   select ctid from tag_spend_deltas where id > $2 order by id limit $1)) returning *),
                 rolled as (insert into tag_spend_rollups as old (organization_id, tag, currency, day, price_micros)
                   select organization_id, tag, currency, day, sum(price_micros) from taken group by 1, 2, 3, 4
                   on conflict (organization_id, tag, currency, day) do update set price_micros = old.price_micros + excluded.price_micros)
               select count(*) as "rows!", coalesce(max(id), 0) as "last!" from taken"#,
            BATCH,
            after
        );
        Ok(Some(taken.fetch_one(&mut **transaction).await?))
    })
}

/// Takes away the sums of tags that no budget looks at any more, and a month later than that, so that nobody compares them meanwhile. Some at
/// a time, and between them those who add have their turn: there may be as many as requests. It ends early when it is told to.
///
/// # Errors
/// The database's.
pub async fn forget(pool: &PgPool, stop: &CancellationToken) -> Result<(), Error> {
    let mut busy = 0;
    while busy < TRIES && !stop.is_cancelled() {
        match forget_some(pool).await? {
            Some(forgotten) if forgotten < BATCH.unsigned_abs() => return Ok(()),
            Some(_) => busy = 0,
            None => busy += 1,
        }
        sleep(BREATH).await;
    }
    Ok(())
}

/// None while somebody adds or forgets: they would lock the same rows in another order.
async fn forget_some(pool: &PgPool) -> Result<Option<u64>, Error> {
    in_transaction!(pool, |transaction| {
        let mine =
            sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "mine!""#, LOCK + 2).fetch_one(&mut **transaction).await?;
        if !mine {
            return Ok(None);
        }
        let forgotten = sqlx::query!(
            "delete from tag_spend_rollups where (organization_id, tag, currency, day) in (
               select organization_id, tag, currency, day from tag_spend_rollups
               where day < tag_spend_since() - interval '1 month' order by day limit $1)",
            BATCH
        );
        Ok(Some(forgotten.execute(&mut **transaction).await?.rows_affected()))
    })
}

/// Makes them anew from an instant on, in the transaction that does so with those of usage.
///
/// # Errors
/// The database's.
pub async fn rebuild_in(transaction: &mut Transaction<'static, Postgres>, since: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!("delete from spend_rollups where day >= $1", since).execute(&mut **transaction).await?;
    sqlx::query!("delete from spend_deltas where day >= $1", since).execute(&mut **transaction).await?;
    sqlx::query!("select spend_deltas_of_all($1)", since).execute(&mut **transaction).await?;
    sqlx::query!("delete from tag_spend_rollups where day >= $1", since).execute(&mut **transaction).await?;
    sqlx::query!("delete from tag_spend_deltas where day >= $1", since).execute(&mut **transaction).await?;
    sqlx::query!("select tag_spend_deltas_of_all($1)", since).execute(&mut **transaction).await?;
    Ok(())
}
