//! Whether the rollups, with what was not added to them yet, say what the rows say: both grains and every column. What was retired has no
//! rows any more and is left out.

use chassis::in_transaction;
use chrono::{DateTime, Utc};
use serde_json::{Map, Number, Value};
use sqlx::{PgPool, Postgres, Transaction};

use crate::error::Error;

/// One line for each hour or day of something that differs: of an organization, model and key, of a person, of a tag, of a meter and its groups.
///
/// # Errors
/// The database's.
pub async fn differences(pool: &PgPool) -> Result<Vec<String>, Error> {
    in_transaction!(pool, |transaction| {
        // Every row is read, which takes longer than a request may.
        sqlx::query!("set local statement_timeout = 0").execute(&mut **transaction).await?;
        let mut lines = of_usage(transaction).await?;
        lines.extend(of_people_and_tags(transaction).await?);
        lines.extend(of_meters(transaction).await?);
        lines.extend(of_values(transaction).await?);
        Ok(lines)
    })
}

/// What differs of two sums: each column with what the rollups say and what the rows say.
fn told(rolled: Option<&Value>, raw: Option<&Value>) -> String {
    let of = |sums: Option<&Value>, column: &str| sums.and_then(|sums| sums[column].as_number().cloned());
    let text = |number: Option<Number>| number.map_or_else(|| "nothing".to_owned(), |number| number.to_string());
    let columns = rolled.or(raw).and_then(Value::as_object).into_iter().flat_map(Map::keys);
    let columns = columns.map(|column| (column, of(rolled, column), of(raw, column))).filter(|(_, rolled, raw)| rolled != raw);
    columns.map(|(column, rolled, raw)| format!("{column} {}, not {}", text(rolled), text(raw))).collect::<Vec<_>>().join("; ")
}

async fn of_usage(transaction: &mut Transaction<'static, Postgres>) -> Result<Vec<String>, Error> {
    let rows = sqlx::query!(
        r#"with floor as (select coalesce((max(month) + interval '1 month') at time zone 'UTC', '-infinity') as since from usage_retired),
             grains (grain) as (values ('hour'), ('day')),
             parts as (
               select grain, window_start, organization_id, model, api_key_id, currency, requests, input_tokens, cached_input_tokens,
                 cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens,
                 images, price_micros, cost_micros
               from usage_rollups
               union all
               select grain, date_trunc(grain, hour, 'UTC'), organization_id, model, api_key_id, currency, requests, input_tokens,
                 cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, audio_input_tokens,
                 audio_output_tokens, images, price_micros, cost_micros
               from usage_deltas, grains),
             rolled as (
               select grain, window_start, organization_id, model, api_key_id, currency, sum(requests) as requests,
                 sum(input_tokens) as input_tokens, sum(cached_input_tokens) as cached_input_tokens,
                 sum(cache_write_tokens) as cache_write_tokens, sum(cache_write_1h_tokens) as cache_write_1h_tokens,
                 sum(output_tokens) as output_tokens, sum(reasoning_tokens) as reasoning_tokens,
                 sum(audio_input_tokens) as audio_input_tokens, sum(audio_output_tokens) as audio_output_tokens, sum(images) as images,
                 sum(price_micros) as price_micros, sum(cost_micros) as cost_micros
               from parts where window_start >= (select since from floor) group by 1, 2, 3, 4, 5, 6
               -- All rows of it have moved elsewhere.
               having (sum(requests), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens), sum(cache_write_1h_tokens),
                 sum(output_tokens), sum(reasoning_tokens), sum(audio_input_tokens), sum(audio_output_tokens), sum(images),
                 sum(price_micros), sum(cost_micros)) <> (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
             raw as (
               select grain, date_trunc(grain, ended_at, 'UTC') as window_start, organization_id, model,
                 coalesce(api_key_id, '00000000-0000-0000-0000-000000000000') as api_key_id, currency, count(*) as requests,
                 sum(input_tokens) as input_tokens, sum(cached_input_tokens) as cached_input_tokens,
                 sum(cache_write_tokens) as cache_write_tokens, sum(cache_write_1h_tokens) as cache_write_1h_tokens,
                 sum(output_tokens) as output_tokens, sum(reasoning_tokens) as reasoning_tokens,
                 sum(audio_input_tokens) as audio_input_tokens, sum(audio_output_tokens) as audio_output_tokens, sum(images) as images,
                 sum(price_micros) as price_micros, sum(cost_micros) as cost_micros
               from usage_events, grains where ended_at >= (select since from floor) group by 1, 2, 3, 4, 5, 6)
           select grain as "grain!", window_start as "window_start!", organization_id as "organization_id!", model as "model!",
             to_jsonb(rolled) as rolled, to_jsonb(raw) as raw
           from rolled full join raw using (grain, window_start, organization_id, model, api_key_id, currency)
           where to_jsonb(rolled) is distinct from to_jsonb(raw) order by 2, 1, 3, 4"#
    )
    .fetch_all(&mut **transaction)
    .await?;
    let lines = rows.iter().map(|row| {
        let (start, organization, model) = (instant(row.window_start), row.organization_id, &row.model);
        format!("{organization} {} of {start}, {model}: the rollups say {}", row.grain, told(row.rolled.as_ref(), row.raw.as_ref()))
    });
    Ok(lines.collect())
}

/// Of people and tags, the last month with usage and the one before, where it was not retired: as far back as budgets look.
async fn of_people_and_tags(transaction: &mut Transaction<'static, Postgres>) -> Result<Vec<String>, Error> {
    let rows = sqlx::query!(
        r#"with recent as (select greatest(tag_spend_since(),
               (select (max(month) + interval '1 month') at time zone 'UTC' from usage_retired)) as since),
             known as (select organization_id, day, 'user ' || user_id as whose, currency, price_micros from spend_by_day
               union all select organization_id, day, 'tag ' || tag, currency, price_micros from tag_spend_by_day),
             rolled as (select organization_id, day, whose, currency, sum(price_micros) as price_micros from known
               where day >= (select since from recent) group by 1, 2, 3, 4 having sum(price_micros) <> 0),
             raw as (select organization_id, date_trunc('day', ended_at, 'UTC') as day, whose, currency, sum(price_micros) as price_micros
               from usage_events, lateral (select 'user ' || user_id as whose where user_id is not null
                 union all select 'tag ' || tag from jsonb_array_elements_text(tags) tag) spender
               where ended_at >= (select since from recent) group by 1, 2, 3, 4 having sum(price_micros) <> 0)
           select organization_id as "organization_id!", day as "day!", whose as "whose!",
             to_jsonb(rolled) as rolled, to_jsonb(raw) as raw
           from rolled full join raw using (organization_id, day, whose, currency)
           where rolled.price_micros is distinct from raw.price_micros order by 2, 1, 3"#
    )
    .fetch_all(&mut **transaction)
    .await?;
    let lines = rows.iter().map(|row| {
        // A client chose the tag, and this is read in a terminal.
        let (day, organization, whose) = (instant(row.day), row.organization_id, row.whose.escape_debug());
        format!("{organization} day of {day}, of {whose}: the rollups say {}", told(row.rolled.as_ref(), row.raw.as_ref()))
    });
    Ok(lines.collect())
}

async fn of_meters(transaction: &mut Transaction<'static, Postgres>) -> Result<Vec<String>, Error> {
    let rows = sqlx::query!(
        r#"with grains (grain) as (values ('hour'), ('day')),
             parts as (
               select meter_id, grain, window_start, groups, events, amount, most from meter_rollups
               union all
               select meter_id, grain, date_trunc(grain, hour, 'UTC'), groups, events, amount, most from meter_deltas, grains),
             rolled as (
               select meter_id, grain, window_start, groups, sum(events) as events, sum(amount) as amount, max(most) as most
               from parts where window_start >= (select metered_since()) group by 1, 2, 3, 4),
             raw as (
               select meter_id, grain, date_trunc(grain, hour, 'UTC') as window_start, groups, count(*) as events,
                 coalesce(sum(amount), 0) as amount, max(amount) as most
               from meter_contributions, grains where hour >= (select metered_since()) group by 1, 2, 3, 4)
           select meter_id as "meter_id!", grain as "grain!", window_start as "window_start!", groups::text as "groups!",
             to_jsonb(rolled) as rolled, to_jsonb(raw) as raw
           from rolled full join raw using (meter_id, grain, window_start, groups)
           where to_jsonb(rolled) is distinct from to_jsonb(raw) order by 3, 2, 1, 4"#
    )
    .fetch_all(&mut **transaction)
    .await?;
    let lines = rows.iter().map(|row| {
        let (start, meter, groups) = (instant(row.window_start), row.meter_id, &row.groups);
        format!("meter {meter} {} of {start}, {groups}: the rollups say {}", row.grain, told(row.rolled.as_ref(), row.raw.as_ref()))
    });
    Ok(lines.collect())
}

/// The distinct values of meters, which no sum has.
async fn of_values(transaction: &mut Transaction<'static, Postgres>) -> Result<Vec<String>, Error> {
    let rows = sqlx::query!(
        r#"with rolled as (
               select meter_id, window_start as hour, groups, value, true as there from meter_values where window_start >= (select metered_since())
               union select meter_id, hour, groups, value, true from meter_deltas where value is not null and hour >= (select metered_since())),
             raw as (select distinct meter_id, hour, groups, value, true as there from meter_contributions
               where value is not null and hour >= (select metered_since()))
           select meter_id as "meter_id!", hour as "hour!", groups::text as "groups!",
             count(*) filter (where rolled.there is null) as "missing!", count(*) filter (where raw.there is null) as "extra!"
           from rolled full join raw using (meter_id, hour, groups, value)
           where rolled.there is null or raw.there is null group by meter_id, hour, groups order by 2, 1, 3"#
    )
    .fetch_all(&mut **transaction)
    .await?;
    let lines = rows.iter().map(|row| {
        let (start, meter, groups) = (instant(row.hour), row.meter_id, &row.groups);
        format!("meter {meter} hour of {start}, {groups}: the rollups lack {} values and have {} that no event has", row.missing, row.extra)
    });
    Ok(lines.collect())
}

fn instant(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%MZ").to_string()
}
