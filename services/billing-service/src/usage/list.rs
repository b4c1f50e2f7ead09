//! `GET /v1/usage`: what the organization's requests used.

use axum::extract::State;
use chassis::cursor::Page;
use chassis::http::Query;
use chassis::postgres::begin_planned_anew;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use contracts::RequestId;
use identity::{ApiKeyId, Authenticated, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::error::Error;
use crate::state::AppState;

const PAGE: usize = 100;

/// What one request used.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageRow {
    /// The request, as its answer named it (`x-request-id`).
    request_id: RequestId,
    /// When it ended.
    time: DateTime<Utc>,
    /// The model.
    model: String,
    /// The provider that served it.
    provider: String,
    /// Prompt tokens at the full rate.
    input_tokens: i64,
    /// Prompt tokens read from the provider's cache.
    cached_input_tokens: i64,
    /// Prompt tokens written to the provider's cache.
    cache_write_tokens: i64,
    /// Generated tokens.
    output_tokens: i64,
    /// Prompt tokens written to the provider's cache for an hour.
    cache_write_1h_tokens: i64,
    /// Hidden reasoning tokens.
    reasoning_tokens: i64,
    /// Audio tokens of the prompt.
    audio_input_tokens: i64,
    /// Audio tokens generated.
    audio_output_tokens: i64,
    /// Images that are paid by the piece.
    images: i64,
    /// ISO 4217 code.
    currency: String,
    /// What it cost the organization, in micro-units.
    price_micros: i64,
    /// The key that called.
    api_key_id: Option<ApiKeyId>,
    /// The trace, as Jaeger knows it.
    trace_id: Option<String>,
    /// `reported`, `counted`, `estimated` or `abandoned`.
    counted_by: String,
    /// `completed`, `client_closed`, `upstream_cut`, `failed`, `deadline` or `shutdown`.
    outcome: String,
    /// What the client tagged it with.
    tags: Vec<String>,
}

/// Which rows, and where the list goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Ended at or after this instant.
    from: Option<DateTime<Utc>>,
    /// Ended before this instant.
    to: Option<DateTime<Utc>>,
    /// Of this model only.
    model: Option<String>,
}

/// What the organization's requests used, newest first.
#[utoipa::path(get, path = "/v1/usage", tag = "usage", params(UsageQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<UsageRow>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<UsageQuery>,
) -> Result<axum::Json<Page<UsageRow>>, Error> {
    principal.require(Scope::BillingRead)?;
    let after: Option<(DateTime<Utc>, Uuid)> = query.cursor.map(|cursor| state.usage_cursors.decode(&cursor)).transpose()?;
    let (after_time, after_id) = after.unzip();
    let mut reading = begin_planned_anew(&state.pool).await?;
    let rows = sqlx::query!(
        r#"select request_id, ended_at, model, provider, input_tokens, cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
                audio_input_tokens, audio_output_tokens, images, currency,
                price_micros, api_key_id, trace_id, counted_by, outcome, tags as "tags: sqlx::types::Json<Vec<String>>"
         from usage_events where organization_id = $1 and ($2::timestamptz is null or (ended_at, request_id) < ($2, $3))
           and ($4::timestamptz is null or ended_at >= $4) and ($5::timestamptz is null or ended_at < $5) and ($6::text is null or model = $6)
         order by ended_at desc, request_id desc limit $7"#,
        principal.organization_id.uuid(),
        after_time,
        after_id,
        query.from,
        query.to,
        query.model,
        i64::try_from(PAGE + 1).unwrap_or(i64::MAX)
    )
    .fetch_all(&mut *reading)
    .await?;
    reading.commit().await?;
    let page = state.usage_cursors.page(rows, PAGE, |last| (last.ended_at, last.request_id));
    Ok(axum::Json(page.map(|row| UsageRow {
        request_id: RequestId::from_uuid(row.request_id),
        time: row.ended_at,
        model: row.model,
        provider: row.provider,
        input_tokens: row.input_tokens,
        cached_input_tokens: row.cached_input_tokens,
        cache_write_tokens: row.cache_write_tokens,
        output_tokens: row.output_tokens,
        cache_write_1h_tokens: row.cache_write_1h_tokens,
        reasoning_tokens: row.reasoning_tokens,
        audio_input_tokens: row.audio_input_tokens,
        audio_output_tokens: row.audio_output_tokens,
        images: row.images,
        currency: row.currency,
        price_micros: row.price_micros,
        api_key_id: row.api_key_id.map(ApiKeyId::from_uuid),
        trace_id: row.trace_id,
        counted_by: row.counted_by,
        outcome: row.outcome,
        tags: row.tags.0,
    })))
}
