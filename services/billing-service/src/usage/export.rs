//! `GET /v1/usage/export`: every row of a time as CSV or JSON lines. Read page by page along the key, so that ten million rows take as
//! much memory as one page.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::Problem;
use chassis::http::Query;
use chassis::postgres::begin_planned_anew;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use futures::stream::try_unfold;
use futures::{Stream, StreamExt};
use http::header;
use identity::{Authenticated, OrganizationId, Scope};
use serde::Deserialize;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::error::{Error, check_instants};
use crate::spreadsheet::{Cell, row};
use crate::state::AppState;

/// Rows in memory at most.
pub const PAGE: i64 = 1_000;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema, clap::ValueEnum)]
#[schema(as = ExportFormat)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated values with a line of names (RFC 4180).
    Csv,
    /// One JSON object on each line.
    Jsonl,
}

impl Format {
    /// Its media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Jsonl => "application/jsonl",
        }
    }
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

/// A row: where it stands, and itself as JSON with the columns in their order.
struct Row {
    ended_at: DateTime<Utc>,
    request_id: Uuid,
    json: String,
}

/// Every row of a time, oldest first, as a stream.
#[utoipa::path(get, path = "/v1/usage/export", tag = "usage", params(ExportQuery), security(("bearer" = [])),
    responses((status = 200, content((String = "text/csv"), (String = "application/jsonl"))), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 429, body = ProblemBody, description = "Four exports are under way already")))]
pub async fn export(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Error> {
    principal.require(Scope::BillingRead)?;
    if query.to <= query.from {
        return Err(Problem::invalid_field("to", "must be after from").into());
    }
    check_instants(&[query.from, query.to])?;
    let place = state.exports.take(principal.organization_id)?;
    let rows = chunks(state.pool.clone(), Some(principal.organization_id), query.from, query.to, query.format);
    // Until the last row was taken, or nobody takes them any more.
    let rows = rows.inspect(move |_| {
        let _ = &place;
    });
    Ok(([(header::CONTENT_TYPE, query.format.content_type())], Body::from_stream(rows)).into_response())
}

/// The rows as text, one page at a time: of one organization, or of all of them for operators with our cost and what was written off.
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
            let last = rows.last().map(|row| (row.ended_at, row.request_id, false));
            let more = last.filter(|_| i64::try_from(rows.len()) == Ok(PAGE));
            for row in &rows {
                match format {
                    Format::Csv => csv(&mut text, &row.json),
                    Format::Jsonl => {
                        text.push_str(&row.json);
                        text.push('\n');
                    }
                }
            }
            Ok(Some((Bytes::from(text), more)))
        }
    })
}

const COLUMNS: &str = "request_id,organization_id,api_key_id,user_id,model,provider,input_tokens,cached_input_tokens,cache_write_tokens,\
    cache_write_1h_tokens,output_tokens,reasoning_tokens,audio_input_tokens,audio_output_tokens,images,rate_card_id,currency,price_micros,cost_micros,\
    counted_by,outcome,trace_id,started_at,ended_at";

/// What is for operators only: our cost, and what was written off. What came later stands last, where programs that go by the number of a
/// column do not mind it.
fn heading(for_operators: bool) -> String {
    if for_operators { format!("{COLUMNS},written_off_micros,tags\r\n") } else { COLUMNS.replace("cost_micros,", "") + ",tags\r\n" }
}

/// The same names and the same order as in JSON, by way of JSON. Tags stand as in the header that they came in: no tag has a comma.
fn csv(text: &mut String, json: &str) {
    let Ok(serde_json::Value::Object(members)) = serde_json::from_str(json) else { return };
    let tags = members.get("tags").and_then(serde_json::Value::as_array).into_iter().flatten().filter_map(serde_json::Value::as_str);
    let tags = tags.collect::<Vec<_>>().join(",");
    let cells = members.values().map(|value| match value {
        serde_json::Value::Number(number) => number.as_i64().map_or(Cell::Empty, Cell::Integer),
        serde_json::Value::String(text) => Cell::Text(text),
        serde_json::Value::Array(_) if !tags.is_empty() => Cell::Text(&tags),
        _ => Cell::Empty,
    });
    row(text, &cells.collect::<Vec<_>>());
}

async fn page(
    pool: &PgPool,
    organization: Option<OrganizationId>,
    after: DateTime<Utc>,
    after_id: Uuid,
    to: DateTime<Utc>,
) -> Result<Vec<Row>, sqlx::Error> {
    // The database writes the JSON: two dozen columns are not read into fields only to be written again. One query for all and one for
    // an organization: each goes along its own index, and what it cost us is for operators.
    let mut reading = begin_planned_anew(pool).await?;
    macro_rules! rows {
        ($cost:literal, $written_off:literal, $condition:literal $(, $argument:expr)*) => {
            sqlx::query_as!(
                Row,
                r#"select u.ended_at, u.request_id, row_to_json(line)::text as "json!" from usage_events u, lateral (
                     select 'req_' || replace(u.request_id::text, '-', '') as request_id, 'org_' || replace(u.organization_id::text, '-', '') as organization_id,
                       'key_' || replace(api_key_id::text, '-', '') as api_key_id, 'usr_' || replace(user_id::text, '-', '') as user_id, model, provider,
                       input_tokens, cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
                       audio_input_tokens, audio_output_tokens, images, rate_card_id, currency, price_micros, "# + $cost + r#"counted_by, outcome, trace_id,
                       to_char(u.started_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as started_at,
                       to_char(u.ended_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as ended_at"# + $written_off + r#", tags) line
                   where (u.ended_at, u.request_id) > ($1, $2) and u.ended_at >= $1 and u.ended_at < $3 "# + $condition + "order by u.ended_at, u.request_id limit $4",
                after, after_id, to, PAGE $(, $argument)*
            )
            .fetch_all(&mut *reading)
            .await
        };
    }
    let rows = match organization {
        None => rows!("cost_micros, ", ", written_off_micros", ""),
        Some(organization) => rows!("", "", "and u.organization_id = $5 ", organization.uuid()),
    }?;
    reading.commit().await?;
    Ok(rows)
}
