//! Rollups of what each person's requests, and those with a tag, were sold for, by day.

use chassis::in_transaction;
use chrono::{DateTime, Utc};
use sqlx::{PgPool, Postgres, Transaction};

use super::{BATCH, LOCK};
use crate::error::Error;

/// Adds a batch of deltas to the rollups; whether there may be more. Does nothing while another replica does it.
///
/// # Errors
/// The database's.
pub async fn fold(pool: &PgPool) -> Result<bool, Error> {
    in_transaction!(pool, |transaction| {
        let mine =
            sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "mine!""#, LOCK + 2).fetch_one(&mut **transaction).await?;
        if !mine {
            return Ok(false);
        }
        let taken = sqlx::query_scalar!(
            r#"with taken as (delete from spend_deltas where id in (select id from spend_deltas order by id limit $1) returning *),
                 rolled as (insert into spend_rollups as old (organization_id, user_id, currency, day, price_micros)
                   select organization_id, user_id, currency, day, sum(price_micros) from taken group by 1, 2, 3, 4
                   on conflict (organization_id, user_id, currency, day) do update set price_micros = old.price_micros + excluded.price_micros)
               select count(*) as "taken!" from taken"#,
            BATCH
        )
        .fetch_one(&mut **transaction)
        .await?;
        Ok(fold_tags(transaction).await? == BATCH || taken == BATCH)
    })
}

async fn fold_tags(transaction: &mut Transaction<'static, Postgres>) -> Result<i64, Error> {
    let taken = sqlx::query_scalar!(
        r#"with taken as (delete from tag_spend_deltas where id in (select id from tag_spend_deltas order by id limit $1) returning *),
             rolled as (insert into tag_spend_rollups as old (organization_id, tag, currency, day, price_micros)
               select organization_id, tag, currency, day, sum(price_micros) from taken group by 1, 2, 3, 4
               on conflict (organization_id, tag, currency, day) do update set price_micros = old.price_micros + excluded.price_micros)
           select count(*) as "taken!" from taken"#,
        BATCH
    );
    Ok(taken.fetch_one(&mut **transaction).await?)
}

/// Takes away the sums of tags that no budget looks at any more, some at a time: there may be as many as requests.
///
/// # Errors
/// The database's.
pub async fn forget(pool: &PgPool) -> Result<(), Error> {
    while forget_some(pool).await? == BATCH.unsigned_abs() {}
    Ok(())
}

async fn forget_some(pool: &PgPool) -> Result<u64, Error> {
    in_transaction!(pool, |transaction| {
        // Whoever adds meanwhile would lock the same rows in another order.
        sqlx::query!("select pg_advisory_xact_lock($1)", LOCK + 2).execute(&mut **transaction).await?;
        let forgotten = sqlx::query!(
            "delete from tag_spend_rollups where (organization_id, tag, currency, day) in (
               select organization_id, tag, currency, day from tag_spend_rollups where day < tag_spend_since() order by day limit $1)",
            BATCH
        );
        Ok(forgotten.execute(&mut **transaction).await?.rows_affected())
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
