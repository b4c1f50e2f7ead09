//! `GET /v1/grants`: the organization's lots, those with nothing left too.

use axum::extract::State;
use chassis::cursor::Page;
use chassis::http::Query;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use identity::{Authenticated, Scope};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::{IntoParams, ToSchema};

use super::lot::{GrantId, Source, restriction};
use crate::error::Error;
use crate::state::AppState;

const PAGE: usize = 100;

/// A lot of credit.
#[derive(Debug, Serialize, ToSchema)]
pub struct Grant {
    /// Its id.
    id: GrantId,
    /// What gave it.
    source: Source,
    /// `active`, `exhausted`, `expired` or `revoked`.
    state: String,
    /// ISO 4217 code.
    currency: String,
    /// What was given, in micro-units.
    amount_micros: i64,
    /// What is left of it, in micro-units.
    remaining_micros: i64,
    /// Lower burns first.
    priority: i32,
    /// It pays for requests before this instant and not at it; never expires when null.
    expires_at: Option<DateTime<Utc>>,
    /// The models it may pay for; all when null.
    models: Option<Vec<String>>,
    /// The features it may pay for; all when null.
    features: Option<Vec<String>>,
    /// Why it was given.
    reason: Option<String>,
    /// When.
    created_at: DateTime<Utc>,
}

/// Where a list goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The organization's lots of credit, newest first.
#[utoipa::path(get, path = "/v1/grants", operation_id = "list_grants", tag = "balance", params(ListQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<Grant>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<Grant>>, Error> {
    principal.require(Scope::BillingRead)?;
    let after: Option<i64> = query.cursor.map(|cursor| state.grant_cursors.decode(&cursor)).transpose()?;
    let rows = sqlx::query!(
        r#"select id, position, source, state, currency, amount_micros, remaining_micros, priority, expires_at,
             models as "models: Json<Vec<String>>", features as "features: Json<Vec<String>>", reason, created_at
           from grants where organization_id = $1 and ($2::bigint is null or position < $2) order by position desc limit $3"#,
        principal.organization_id.uuid(),
        after,
        i64::try_from(PAGE + 1).unwrap_or(i64::MAX)
    )
    .fetch_all(&state.pool)
    .await?;
    let Page { data, next_cursor } = state.grant_cursors.page(rows, PAGE, |last| last.position);
    let data = data.into_iter().map(|row| {
        Ok(Grant {
            id: GrantId::from_uuid(row.id),
            source: Source::named(&row.source).ok_or(Error::Internal("a grant has an unknown source"))?,
            state: row.state,
            currency: row.currency,
            amount_micros: row.amount_micros,
            remaining_micros: row.remaining_micros,
            priority: row.priority,
            expires_at: row.expires_at,
            models: row.models.and_then(|Json(models)| restriction(models)),
            features: row.features.and_then(|Json(features)| restriction(features)),
            reason: row.reason,
            created_at: row.created_at,
        })
    });
    Ok(axum::Json(Page { data: data.collect::<Result<_, Error>>()?, next_cursor }))
}
