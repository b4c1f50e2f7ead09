//! `GET /v1/admin/margin/alerts` on the private listener, and the same on the command line: what was sold below its cost. The row of an alert
//! is there before it is counted and logged, so that a process which dies between the two has told it all the same.

use axum::extract::State;
use chassis::cursor::{CursorKey, Page};
use chassis::http::Query;
use chrono::{DateTime, NaiveDate, Utc};
use identity::CallingService;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::report::SCOPE;
use crate::error::Error;
use crate::state::AppState;

const PAGE: usize = 100;

/// Something that was sold below its cost on a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotedAlert {
    /// `organization`, `model` or `key`.
    pub dimension: String,
    /// Which.
    pub value: String,
    /// The day in UTC.
    pub day: NaiveDate,
    /// ISO 4217 code.
    pub currency: String,
    /// What customers paid when it was noticed, in micro-units.
    pub price_micros: i64,
    /// What providers took, in micro-units.
    pub cost_micros: i64,
    /// The difference, below zero.
    pub margin_micros: i64,
    /// When it was noticed.
    pub created_at: DateTime<Utc>,
}

/// Where an alert stands in the list.
type Position = (NaiveDate, String, String, String);

/// Where the list goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertQuery {
    cursor: Option<String>,
}

/// What was sold below its cost, the newest day first.
pub async fn get(
    State(state): State<AppState>,
    caller: CallingService,
    Query(query): Query<AlertQuery>,
) -> Result<axum::Json<Page<NotedAlert>>, Error> {
    caller.require(SCOPE)?;
    let cursors = CursorKey::derive(&state.config.secret, "margin alerts");
    let after = query.cursor.map(|cursor| cursors.decode(&cursor)).transpose()?;
    let rows = page(&state.pool, after, PAGE + 1).await?;
    Ok(axum::Json(cursors.page(rows, PAGE, position)))
}

/// So many of the newest.
///
/// # Errors
/// The database's.
pub async fn newest(pool: &PgPool, limit: usize) -> Result<Vec<NotedAlert>, Error> {
    page(pool, None, limit).await
}

fn position(alert: &NotedAlert) -> Position {
    (alert.day, alert.dimension.clone(), alert.value.clone(), alert.currency.clone())
}

async fn page(pool: &PgPool, after: Option<Position>, limit: usize) -> Result<Vec<NotedAlert>, Error> {
    let after = after.as_ref();
    let rows = sqlx::query_as!(
        NotedAlert,
        r#"select dimension, value, day, currency, price_micros, cost_micros, price_micros - cost_micros as "margin_micros!", created_at from margin_alerts
           where $1::date is null or (day, dimension, value, currency) < ($1, $2, $3, $4)
           order by day desc, dimension desc, value desc, currency desc limit $5"#,
        after.map(|after| after.0),
        after.map(|after| after.1.as_str()),
        after.map(|after| after.2.as_str()),
        after.map(|after| after.3.as_str()),
        i64::try_from(limit).unwrap_or(i64::MAX)
    );
    Ok(rows.fetch_all(pool).await?)
}
