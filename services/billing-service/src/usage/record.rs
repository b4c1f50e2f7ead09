//! The usage row: written once for each request, replaced only where a request that was given up for dead reports after all.

use std::collections::BTreeSet;

use contracts::{LeaseId, RequestId};
use identity::{ApiKeyId, OrganizationId, UserId};
use money::TokenUsage;
use serde_json::Value;
use sqlx::{Postgres, Transaction};

use super::settlement::Used;
use crate::error::Error;
use crate::state::AppState;

/// A row to be written.
#[derive(Debug, Clone)]
pub struct Record {
    /// The request.
    pub request_id: RequestId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// The key that called.
    pub api_key_id: Option<ApiKeyId>,
    /// The person who called.
    pub user_id: Option<UserId>,
    /// The model.
    pub model: String,
    /// The provider.
    pub provider: String,
    /// What was used.
    pub used: Used,
    /// The card that priced it.
    pub rate_card_id: i64,
    /// What the organization pays, in micro-units.
    pub price: i64,
    /// What of its price the organization does not pay, in micro-units.
    pub written_off: i64,
    /// What the provider takes, in micro-units.
    pub cost: i64,
    /// The trace.
    pub trace_id: Option<String>,
    /// The lease it is paid from; none for a hold of its own.
    pub lease_id: Option<LeaseId>,
    /// What the client tagged it with.
    pub tags: BTreeSet<String>,
}

/// Writes rows.
///
/// # Errors
/// The database's.
pub async fn insert_all(state: &AppState, transaction: &mut Transaction<'static, Postgres>, rows: &[Record]) -> Result<(), Error> {
    macro_rules! column {
        (|$row:ident| $value:expr) => {
            &rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    sqlx::query!(
        "insert into usage_events (request_id, organization_id, api_key_id, user_id, model, provider, input_tokens, cached_input_tokens,
           cache_write_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, price_micros,
           cost_micros, counted_by, outcome, trace_id, started_at, ended_at, lease_id, cache_write_1h_tokens, images, written_off_micros, tags, currency, recorded_at)
         select *, $25, $26 from unnest((select $1::uuid[]), (select $2::uuid[]), (select $3::uuid[]), (select $4::uuid[]),
           (select $5::text[]), (select $6::text[]), (select $7::bigint[]), (select $8::bigint[]), (select $9::bigint[]),
           (select $10::bigint[]), (select $11::bigint[]), (select $12::bigint[]), (select $13::bigint[]), (select $14::bigint[]),
           (select $15::bigint[]), (select $16::bigint[]), (select $17::text[]), (select $18::text[]), (select $19::text[]),
           (select $20::timestamptz[]), (select $21::timestamptz[]), (select $22::uuid[]), (select $23::bigint[]),
           (select $24::bigint[]), (select $27::bigint[]), (select $28::jsonb[]))",
        column!(|row| row.request_id.uuid()),
        column!(|row| row.organization_id.uuid()),
        column!(|row| row.api_key_id.map(ApiKeyId::uuid)) as &[Option<uuid::Uuid>],
        column!(|row| row.user_id.map(UserId::uuid)) as &[Option<uuid::Uuid>],
        column!(|row| row.model.clone()),
        column!(|row| row.provider.clone()),
        column!(|row| count(row.used.usage.input_tokens)),
        column!(|row| count(row.used.usage.cached_input_tokens)),
        column!(|row| count(row.used.usage.cache_write_tokens)),
        column!(|row| count(row.used.usage.output_tokens)),
        column!(|row| count(row.used.usage.reasoning_tokens)),
        column!(|row| count(row.used.usage.audio_input_tokens)),
        column!(|row| count(row.used.usage.audio_output_tokens)),
        column!(|row| row.rate_card_id),
        column!(|row| row.price),
        column!(|row| row.cost),
        column!(|row| row.used.counted_by.as_str().to_owned()),
        column!(|row| row.used.outcome.as_str().to_owned()),
        column!(|row| row.trace_id.clone()) as &[Option<String>],
        column!(|row| row.used.started_at),
        column!(|row| row.used.ended_at),
        column!(|row| row.lease_id.map(LeaseId::uuid)) as &[Option<uuid::Uuid>],
        column!(|row| count(row.used.usage.cache_write_1h_tokens)),
        column!(|row| count(row.used.usage.images)),
        crate::ledger::CREDIT.code(),
        state.clock.now(),
        column!(|row| row.written_off),
        column!(|row| row.tags.iter().map(String::as_str).collect::<Value>())
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// What is known of a request that was recorded before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// How its tokens were counted.
    pub counted_by: String,
    /// What was used.
    pub usage: TokenUsage,
    /// Whether it is the same usage.
    pub is_same: bool,
    /// What was charged, in micro-units.
    pub price: i64,
    /// What of its price was neither charged nor free, in micro-units.
    pub written_off: i64,
    /// What the provider took, in micro-units.
    pub cost: i64,
}

/// Compares what was recorded of a request with what is told now.
///
/// # Errors
/// The database's.
pub async fn recorded(
    transaction: &mut Transaction<'static, Postgres>,
    request: RequestId,
    used: &Used,
) -> Result<Option<Recorded>, sqlx::Error> {
    let row = sqlx::query!(
        "select input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, audio_input_tokens,
           audio_output_tokens, cache_write_1h_tokens, images, counted_by, price_micros, cost_micros, written_off_micros
         from usage_events where request_id = $1",
        request.uuid()
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.map(|row| {
        let usage = TokenUsage {
            input_tokens: tokens(row.input_tokens),
            cached_input_tokens: tokens(row.cached_input_tokens),
            cache_write_tokens: tokens(row.cache_write_tokens),
            cache_write_1h_tokens: tokens(row.cache_write_1h_tokens),
            output_tokens: tokens(row.output_tokens),
            reasoning_tokens: tokens(row.reasoning_tokens),
            audio_input_tokens: tokens(row.audio_input_tokens),
            audio_output_tokens: tokens(row.audio_output_tokens),
            images: tokens(row.images),
        };
        Recorded {
            usage,
            is_same: usage == used.usage && row.counted_by == used.counted_by.as_str(),
            counted_by: row.counted_by,
            price: row.price_micros,
            written_off: row.written_off_micros,
            cost: row.cost_micros,
        }
    }))
}

/// What was given back of a request by an operator, in micro-units.
///
/// # Errors
/// The database's.
pub async fn refunded(transaction: &mut Transaction<'static, Postgres>, request: RequestId) -> Result<i64, sqlx::Error> {
    let refunded = sqlx::query_scalar!(
        r#"select coalesce(-sum(e.amount_micros), 0)::bigint as "refunded!" from ledger_transactions t
           join ledger_entries e on e.transaction_id = t.id join accounts a on a.id = e.account_id and a.kind = 'refunds'
           where t.kind = 'usage_refund' and t.external_key = $1"#,
        request.to_string()
    );
    refunded.fetch_one(&mut **transaction).await
}

/// Replaces the row of a request that was given up for dead, by what is charged, what is not, and what it cost.
///
/// # Errors
/// The database's.
pub async fn replace(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    request: RequestId,
    used: &Used,
    (price, written_off): (i64, i64),
    cost: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "update usage_events set input_tokens = $2, cached_input_tokens = $3, cache_write_tokens = $4, output_tokens = $5, reasoning_tokens = $6,
           audio_input_tokens = $7, audio_output_tokens = $8, price_micros = $9, cost_micros = $10, counted_by = $11, outcome = $12,
           started_at = $13, ended_at = $14, recorded_at = $15, cache_write_1h_tokens = $16, images = $17, written_off_micros = $18 where request_id = $1 and counted_by = 'abandoned'",
        request.uuid(),
        count(used.usage.input_tokens),
        count(used.usage.cached_input_tokens),
        count(used.usage.cache_write_tokens),
        count(used.usage.output_tokens),
        count(used.usage.reasoning_tokens),
        count(used.usage.audio_input_tokens),
        count(used.usage.audio_output_tokens),
        price,
        cost,
        used.counted_by.as_str(),
        used.outcome.as_str(),
        used.started_at,
        used.ended_at,
        state.clock.now(),
        count(used.usage.cache_write_1h_tokens),
        count(used.usage.images),
        written_off
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn count(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

fn tokens(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
