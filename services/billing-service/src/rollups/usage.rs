//! Rollups of governed usage: by organization, model, key and currency.

use chassis::in_transaction;
use chrono::{DateTime, Months, NaiveTime, Utc};
use sqlx::{PgPool, Postgres, Transaction};

use super::{BATCH, LOCK, Taken, begin, is_full, spend};
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
        if !begin(transaction, LOCK + 1, after).await? {
            return Ok(None);
        }
        let taken = sqlx::query_as!(
            Taken,
            r#"with taken as (delete from usage_deltas where ctid = any (array(
                   select ctid from usage_deltas where id > $2 order by id limit $1)) returning *),
                 windows as (select 'hour' as grain, hour as window_start, * from taken
                   union all select 'day', date_trunc('day', hour, 'UTC'), * from taken),
                 rolled as (insert into usage_rollups as old (grain, window_start, organization_id, model, api_key_id, currency, requests,
                     input_tokens, cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
                     audio_input_tokens, audio_output_tokens, images, price_micros, cost_micros)
                   select grain, window_start, organization_id, model, api_key_id, currency, sum(requests),
                     sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens), sum(cache_write_1h_tokens), sum(output_tokens),
                     sum(reasoning_tokens), sum(audio_input_tokens), sum(audio_output_tokens), sum(images), sum(price_micros), sum(cost_micros)
                   from windows group by 1, 2, 3, 4, 5, 6
                   on conflict (grain, window_start, organization_id, model, api_key_id, currency) do update set
                     requests = old.requests + excluded.requests,
                     input_tokens = old.input_tokens + excluded.input_tokens,
                     cached_input_tokens = old.cached_input_tokens + excluded.cached_input_tokens,
                     cache_write_tokens = old.cache_write_tokens + excluded.cache_write_tokens,
                     cache_write_1h_tokens = old.cache_write_1h_tokens + excluded.cache_write_1h_tokens,
                     output_tokens = old.output_tokens + excluded.output_tokens,
                     reasoning_tokens = old.reasoning_tokens + excluded.reasoning_tokens,
                     audio_input_tokens = old.audio_input_tokens + excluded.audio_input_tokens,
                     audio_output_tokens = old.audio_output_tokens + excluded.audio_output_tokens,
                     images = old.images + excluded.images,
                     price_micros = old.price_micros + excluded.price_micros,
                     cost_micros = old.cost_micros + excluded.cost_micros)
               select count(*) as "rows!", coalesce(max(id), 0) as "last!" from taken"#,
            BATCH,
            after
        );
        Ok(Some(taken.fetch_one(&mut **transaction).await?))
    })
}

/// Makes the rollups, those of what people and tags spend with them, anew from the rows, as far back as there are rows: months that were retired keep theirs. Answers are right all
/// the while.
///
/// # Errors
/// The database's.
pub async fn rebuild(pool: &PgPool) -> Result<(), Error> {
    in_transaction!(pool, |transaction| { rebuild_in(transaction).await })
}

/// The same in a transaction that has not looked at any row yet.
///
/// # Errors
/// The database's.
pub async fn rebuild_in(transaction: &mut Transaction<'static, Postgres>) -> Result<(), Error> {
    // Before the first look at any row: what is seen afterwards is one picture, in which a row and its delta are both or neither.
    sqlx::query!("set transaction isolation level repeatable read").execute(&mut **transaction).await?;
    sqlx::query!("set local statement_timeout = 0").execute(&mut **transaction).await?;
    sqlx::query!("lock table usage_rollups, spend_rollups, tag_spend_rollups in share row exclusive mode")
        .execute(&mut **transaction)
        .await?;
    let retired = sqlx::query_scalar!("select max(month) from usage_retired").fetch_one(&mut **transaction).await?;
    let since = retired.and_then(|month| month.checked_add_months(Months::new(1))).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    let since = since.unwrap_or(DateTime::<Utc>::UNIX_EPOCH);
    sqlx::query!("delete from usage_rollups where window_start >= $1", since).execute(&mut **transaction).await?;
    sqlx::query!("delete from usage_deltas where hour >= $1", since).execute(&mut **transaction).await?;
    sqlx::query!("select usage_deltas_of_all($1)", since).execute(&mut **transaction).await?;
    spend::rebuild_in(transaction, since).await
}
