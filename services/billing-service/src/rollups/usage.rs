//! Rollups of governed usage: by organization, model, key and currency.

use chassis::in_transaction;
use chrono::{DateTime, Months, NaiveTime, Utc};
use sqlx::{PgPool, Postgres, Transaction};

use super::{BATCH, LOCK, spend};
use crate::error::Error;

/// Adds a batch of deltas to the rollups; whether there may be more. Does nothing while another replica does it.
///
/// # Errors
/// The database's.
pub async fn fold(pool: &PgPool) -> Result<bool, Error> {
    in_transaction!(pool, |transaction| {
        let mine =
            sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "mine!""#, LOCK + 1).fetch_one(&mut **transaction).await?;
        if !mine {
            return Ok(false);
        }
        let taken = sqlx::query_scalar!(
            r#"with taken as (delete from usage_deltas where id in (select id from usage_deltas order by id limit $1) returning *),
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
               select count(*) as "taken!" from taken"#,
            BATCH
        )
        .fetch_one(&mut **transaction)
        .await?;
        Ok(taken == BATCH)
    })
}

/// Makes the rollups, those of what people spend with them, anew from the rows, as far back as there are rows: months that were retired keep theirs. Answers are right all
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
    sqlx::query!("lock table usage_rollups, spend_rollups in share row exclusive mode").execute(&mut **transaction).await?;
    let retired = sqlx::query_scalar!("select max(month) from usage_retired").fetch_one(&mut **transaction).await?;
    let since = retired.and_then(|month| month.checked_add_months(Months::new(1))).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    let since = since.unwrap_or(DateTime::<Utc>::UNIX_EPOCH);
    sqlx::query!("delete from usage_rollups where window_start >= $1", since).execute(&mut **transaction).await?;
    sqlx::query!("delete from usage_deltas where hour >= $1", since).execute(&mut **transaction).await?;
    sqlx::query!("select usage_deltas_of_all($1)", since).execute(&mut **transaction).await?;
    spend::rebuild_in(transaction, since).await
}

/// Compares the rollups, with what was not added to them yet, with the rows; one line for each organization, model, key and day, and for
/// each person and day, that differs. Months that were retired cannot be compared and are left out.
///
/// # Errors
/// The database's.
pub async fn differences(pool: &PgPool) -> Result<Vec<String>, Error> {
    let rows = sqlx::query!(
        r#"with floor as (select coalesce((max(month) + interval '1 month') at time zone 'UTC', '-infinity') as since from usage_retired),
             rolled as (select organization_id, day, model, api_key_id, currency, sum(requests) as requests, sum(price_micros) as price, sum(cost_micros) as cost
               from usage_by_day where day >= (select since from floor) group by 1, 2, 3, 4, 5
               having sum(requests) <> 0 or sum(price_micros) <> 0 or sum(cost_micros) <> 0),
             raw as (select organization_id, date_trunc('day', ended_at, 'UTC') as day, model, coalesce(api_key_id, '00000000-0000-0000-0000-000000000000') as api_key_id,
                 currency, count(*)::numeric as requests, sum(price_micros)::numeric as price, sum(cost_micros)::numeric as cost
               from usage_events where ended_at >= (select since from floor) group by 1, 2, 3, 4, 5),
             -- Of people, the last month with usage and the one before: as far back as budgets look.
             recent as (select date_trunc('month', max(ended_at), 'UTC') - interval '1 month' as since from usage_events),
             rolled_spend as (select organization_id, day, user_id, currency, sum(price_micros) as price from spend_by_day
               where day >= (select since from recent) group by 1, 2, 3, 4 having sum(price_micros) <> 0),
             raw_spend as (select organization_id, date_trunc('day', ended_at, 'UTC') as day, user_id, currency, sum(price_micros)::numeric as price
               from usage_events where ended_at >= (select since from recent) and user_id is not null group by 1, 2, 3, 4 having sum(price_micros) <> 0)
           select organization_id as "organization_id!", day as "day!", model as "model!",
             concat(rolled.requests, ', ', rolled.price, ', ', rolled.cost) as "rolled!", concat(raw.requests, ', ', raw.price, ', ', raw.cost) as "raw!"
           from rolled full join raw using (organization_id, day, model, api_key_id, currency)
           where (rolled.requests, rolled.price, rolled.cost) is distinct from (raw.requests, raw.price, raw.cost)
           union all select organization_id, day, 'of user ' || user_id, concat(rolled_spend.price), concat(raw_spend.price)
           from rolled_spend full join raw_spend using (organization_id, day, user_id, currency) where rolled_spend.price is distinct from raw_spend.price"#
    )
    .fetch_all(pool)
    .await?;
    let line = |organization, day: DateTime<Utc>, model: &str, rolled: &str, raw: &str| {
        format!(
            "{organization} {} {model}: the rollups say {rolled} (requests, price, cost; of a user the price) and the rows {raw}",
            day.date_naive()
        )
    };
    Ok(rows.iter().map(|row| line(row.organization_id, row.day, &row.model, &row.rolled, &row.raw)).collect())
}
