//! `GET /v1/usage/export`: every row of a time as CSV or JSON lines. Read page by page along the key, so that ten million rows take as
//! much memory as one page.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::Problem;
use chassis::http::Query;
use chassis::problem::ProblemBody;
use chrono::{DateTime, SecondsFormat, Utc};
use contracts::RequestId;
use futures::Stream;
use futures::stream::try_unfold;
use http::header;
use identity::{ApiKeyId, Authenticated, OrganizationId, Scope, UserId};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::error::Error;
use crate::state::AppState;

/// Rows in memory at most.
pub const PAGE: i64 = 1_000;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated values with a line of names (RFC 4180).
    Csv,
    /// One JSON object on each line.
    Jsonl,
}

/// Which rows, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// How rows are written.
    format: Format,
    /// Ended at or after this instant.
    from: DateTime<Utc>,
    /// Ended before this instant.
    to: DateTime<Utc>,
}

/// One row; its fields are the columns, in this order.
#[derive(Debug, Serialize)]
struct Row {
    request_id: RequestId,
    organization_id: OrganizationId,
    api_key_id: Option<ApiKeyId>,
    user_id: Option<UserId>,
    model: String,
    provider: String,
    input_tokens: i64,
    cached_input_tokens: i64,
    cache_write_tokens: i64,
    cache_write_1h_tokens: i64,
    output_tokens: i64,
    reasoning_tokens: i64,
    audio_input_tokens: i64,
    audio_output_tokens: i64,
    images: i64,
    rate_card_id: i64,
    currency: String,
    price_micros: i64,
    /// What it cost us is for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_micros: Option<i64>,
    counted_by: String,
    outcome: String,
    trace_id: Option<String>,
    started_at: String,
    ended_at: String,
}

/// Every row of a time, oldest first, as a stream.
#[utoipa::path(get, path = "/v1/usage/export", tag = "usage", params(ExportQuery), security(("bearer" = [])),
    responses((status = 200, content((String = "text/csv"), (String = "application/jsonl"))), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn export(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Error> {
    principal.require(Scope::BillingRead)?;
    if query.to <= query.from {
        return Err(Problem::invalid_field("to", "must be after from").into());
    }
    let content_type = match query.format {
        Format::Csv => "text/csv; charset=utf-8",
        Format::Jsonl => "application/jsonl",
    };
    let rows = chunks(state.pool.clone(), Some(principal.organization_id), query.from, query.to, query.format);
    Ok(([(header::CONTENT_TYPE, content_type)], Body::from_stream(rows)).into_response())
}

/// The rows as text, one page at a time: of one organization, or with our cost of all of them for operators.
pub fn chunks(
    pool: PgPool,
    organization: Option<OrganizationId>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    format: Format,
) -> impl Stream<Item = Result<Bytes, sqlx::Error>> {
    let beginning = Some((from, Uuid::nil(), true));
    try_unfold(beginning, move |position| {
        let pool = pool.clone();
        async move {
            let Some((after, after_id, first)) = position else { return Ok(None) };
            let rows = page(&pool, organization, after, after_id, to).await?;
            let mut text = String::new();
            if first && format == Format::Csv {
                text.push_str(&heading(organization.is_none()));
            }
            let last = rows.last().map(|(ended_at, row)| (*ended_at, row.request_id.uuid(), false));
            let more = last.filter(|_| i64::try_from(rows.len()) == Ok(PAGE));
            for (_, row) in &rows {
                match format {
                    Format::Csv => csv(&mut text, row),
                    Format::Jsonl => text.push_str(&(serde_json::to_string(row).unwrap_or_default() + "\n")),
                }
            }
            Ok(Some((Bytes::from(text), more)))
        }
    })
}

const COLUMNS: &str = "request_id,organization_id,api_key_id,user_id,model,provider,input_tokens,cached_input_tokens,cache_write_tokens,\
    cache_write_1h_tokens,output_tokens,reasoning_tokens,audio_input_tokens,audio_output_tokens,images,rate_card_id,currency,price_micros,cost_micros,\
    counted_by,outcome,trace_id,started_at,ended_at\r\n";

fn heading(with_cost: bool) -> String {
    if with_cost { COLUMNS.to_owned() } else { COLUMNS.replace("cost_micros,", "") }
}

fn csv(text: &mut String, row: &Row) {
    // The same names and the same order as in JSON, by way of JSON.
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(row) else { return };
    for (index, value) in members.values().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::String(field) => text.push_str(&quoted(field)),
            number => text.push_str(&number.to_string()),
        }
    }
    text.push_str("\r\n");
}

/// A field as RFC 4180 has it. What a spreadsheet would take for a formula is made text by an apostrophe.
fn quoted(field: &str) -> String {
    let field = if field.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{field}") } else { field.to_owned() };
    if field.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

async fn page(
    pool: &PgPool,
    organization: Option<OrganizationId>,
    after: DateTime<Utc>,
    after_id: Uuid,
    to: DateTime<Utc>,
) -> Result<Vec<(DateTime<Utc>, Row)>, sqlx::Error> {
    // One query for all and one for an organization: each goes along its own index.
    macro_rules! rows {
        ($condition:literal $(, $argument:expr)*) => {
            sqlx::query!(
                "select request_id, organization_id, api_key_id, user_id, model, provider, input_tokens, cached_input_tokens, cache_write_tokens,
                   cache_write_1h_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, images, rate_card_id, currency,
                   price_micros, cost_micros, counted_by, outcome, trace_id, started_at, ended_at
                 from usage_events where (ended_at, request_id) > ($1, $2) and ended_at >= $1 and ended_at < $3 " + $condition + "order by ended_at, request_id limit $4",
                after, after_id, to, PAGE $(, $argument)*
            )
            .fetch_all(pool)
            .await?
            .into_iter()
            .map(|row| (row.ended_at, Row {
                request_id: RequestId::from_uuid(row.request_id),
                organization_id: OrganizationId::from_uuid(row.organization_id),
                api_key_id: row.api_key_id.map(ApiKeyId::from_uuid),
                user_id: row.user_id.map(UserId::from_uuid),
                model: row.model,
                provider: row.provider,
                input_tokens: row.input_tokens,
                cached_input_tokens: row.cached_input_tokens,
                cache_write_tokens: row.cache_write_tokens,
                cache_write_1h_tokens: row.cache_write_1h_tokens,
                output_tokens: row.output_tokens,
                reasoning_tokens: row.reasoning_tokens,
                audio_input_tokens: row.audio_input_tokens,
                audio_output_tokens: row.audio_output_tokens,
                images: row.images,
                rate_card_id: row.rate_card_id,
                currency: row.currency,
                price_micros: row.price_micros,
                cost_micros: organization.is_none().then_some(row.cost_micros),
                counted_by: row.counted_by,
                outcome: row.outcome,
                trace_id: row.trace_id,
                started_at: row.started_at.to_rfc3339_opts(SecondsFormat::Micros, true),
                ended_at: row.ended_at.to_rfc3339_opts(SecondsFormat::Micros, true),
            }))
            .collect()
        };
    }
    Ok(match organization {
        None => rows!(""),
        Some(organization) => rows!("and organization_id = $5 ", organization.uuid()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_commas_quotes_or_a_formula_stays_one_field_and_text() {
        assert_eq!(quoted("gpt-4o"), "gpt-4o");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=1+1"), "'=1+1");
    }
}
