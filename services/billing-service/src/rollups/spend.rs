//! Rollups of what each person's requests were sold for, by day.

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
        Ok(taken == BATCH)
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
    Ok(())
}
