//! Rollups of meters.

use chassis::in_transaction;
use sqlx::{PgPool, Postgres, Transaction};

use super::{BATCH, LOCK, Taken, begin, is_full};
use crate::error::Error;

/// Adds the first batch of deltas to the rollups; whether there may be more. Does nothing while another replica does it.
///
/// # Errors
/// The database's.
pub async fn fold(pool: &PgPool) -> Result<bool, Error> {
    Ok(is_full(fold_after(pool, 0).await?))
}

/// Adds a batch of the deltas after an id; nothing while another replica does it.
pub(super) async fn fold_after(pool: &PgPool, after: i64) -> Result<Option<Taken>, Error> {
    in_transaction!(pool, |transaction| {
        if !begin(transaction, LOCK, after).await? {
            return Ok(None);
        }
        let taken = sqlx::query_as!(
            Taken,
            r#"with taken as (delete from meter_deltas where ctid = any (array(
                   select ctid from meter_deltas where id > $2 order by id limit $1)) returning *),
                 distinct_values as (insert into meter_values (meter_id, window_start, groups, value)
                   select distinct meter_id, hour, groups, value from taken where value is not null on conflict do nothing),
                 windows as (select 'hour' as grain, hour as window_start, * from taken
                   union all select 'day', date_trunc('day', hour, 'UTC'), * from taken),
                 rolled as (insert into meter_rollups as old (meter_id, grain, window_start, groups, events, amount, most)
                   select meter_id, grain, window_start, groups, sum(events), sum(amount), max(most) from windows group by 1, 2, 3, 4
                   on conflict (meter_id, grain, window_start, groups) do update
                   set events = old.events + excluded.events, amount = old.amount + excluded.amount, most = greatest(old.most, excluded.most))
               select count(*) as "rows!", coalesce(max(id), 0) as "last!" from taken"#,
            BATCH,
            after
        );
        Ok(Some(taken.fetch_one(&mut **transaction).await?))
    })
}

/// Counts every event that is kept anew into the deltas, from which nothing of it may be there already.
async fn count_all(transaction: &mut Transaction<'static, Postgres>) -> Result<(), Error> {
    sqlx::query!(
        "insert into meter_deltas (meter_id, hour, groups, events, amount, most, value)
         select meter_id, hour, groups, count(*), coalesce(sum(amount), 0), max(amount), value from meter_contributions
         where hour >= (select metered_since()) group by meter_id, hour, groups, value"
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Makes the rollups anew from the events, as far back as there are events: months that were retired keep theirs. Answers are right all
/// the while.
///
/// # Errors
/// The database's.
pub async fn rebuild(pool: &PgPool) -> Result<(), Error> {
    in_transaction!(pool, |transaction| {
        // Before the first look at any row: what is seen afterwards is one picture, in which an event and its delta are both or neither.
        sqlx::query!("set transaction isolation level repeatable read").execute(&mut **transaction).await?;
        sqlx::query!("set local statement_timeout = 0").execute(&mut **transaction).await?;
        sqlx::query!("lock table meter_rollups in share row exclusive mode").execute(&mut **transaction).await?;
        sqlx::query!("delete from meter_rollups where window_start >= (select metered_since())").execute(&mut **transaction).await?;
        sqlx::query!("delete from meter_values where window_start >= (select metered_since())").execute(&mut **transaction).await?;
        sqlx::query!("delete from meter_deltas where hour >= (select metered_since())").execute(&mut **transaction).await?;
        count_all(transaction).await
    })
}
