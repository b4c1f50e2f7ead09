//! `GET /v1/admin/margin` on the private listener, and the same on the command line. From the rollups, so that it costs as much for ten
//! million rows as for ten; what was written off is read from the few rows that have some.

use axum::extract::State;
use chassis::Problem;
use chassis::http::Query;
use chrono::{DateTime, Utc};
use identity::CallingService;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::error::Error;
use crate::state::AppState;

/// The scope a caller needs.
pub(super) const SCOPE: &str = contracts::billing::SCOPE_MARGIN_READ;

/// What margin is told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The organization that paid.
    Organization,
    /// The model.
    Model,
    /// The API key that called; the nil UUID for sessions.
    Key,
    /// The day in UTC.
    Day,
}

impl By {
    /// Its text in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Model => "model",
            Self::Key => "key",
            Self::Day => "day",
        }
    }
}

/// Which days, and by what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarginQuery {
    by: By,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

/// What was earned and what it cost, in micro-units of the currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MarginRow {
    /// The organization, model, key or day.
    pub value: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Requests.
    pub requests: i64,
    /// What customers paid.
    pub price_micros: i64,
    /// What providers took.
    pub cost_micros: i64,
    /// The difference [B-33].
    pub margin_micros: i64,
    /// What of the price of requests nobody was charged (`BILLING_OVERAGE`), of months whose rows are kept; it is in no other column.
    pub written_off_micros: i64,
}

/// Rows by rising margin.
#[derive(Debug, Serialize)]
pub struct Margin {
    data: Vec<MarginRow>,
}

/// Margin of whole days in UTC, from the one of `from` up to and without the one of `to`.
pub async fn get(
    State(state): State<AppState>,
    caller: CallingService,
    Query(query): Query<MarginQuery>,
) -> Result<axum::Json<Margin>, Error> {
    caller.require(SCOPE)?;
    if query.to <= query.from {
        return Err(Problem::invalid_field("to", "must be after from").into());
    }
    Ok(axum::Json(Margin { data: report(&state.pool, query.by, query.from, query.to).await? }))
}

/// Margin of the days that begin in `[from, to)`.
///
/// # Errors
/// The database's.
pub async fn report(pool: &PgPool, by: By, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<MarginRow>, Error> {
    let rows = sqlx::query_as!(
        MarginRow,
        r#"select case $1 when 'organization' then organization_id::text when 'model' then model when 'key' then api_key_id::text
               else to_char(day at time zone 'UTC', 'YYYY-MM-DD') end as "value!",
             currency as "currency!", sum(requests)::bigint as "requests!", sum(price_micros)::bigint as "price_micros!",
             sum(cost_micros)::bigint as "cost_micros!", (sum(price_micros) - sum(cost_micros))::bigint as "margin_micros!",
             sum(written_off_micros)::bigint as "written_off_micros!"
           from (
             select organization_id, model, api_key_id, day, currency, requests, price_micros, cost_micros, 0 as written_off_micros
             from usage_by_day where day >= $2 and day < $3
             union all
             select organization_id, model, coalesce(api_key_id, '00000000-0000-0000-0000-000000000000'), date_trunc('day', ended_at, 'UTC'),
               currency, 0, 0, 0, written_off_micros
             from usage_events where written_off_micros > 0 and ended_at >= $2 and ended_at < $3::timestamptz + interval '1 day'
               and date_trunc('day', ended_at, 'UTC') >= $2 and date_trunc('day', ended_at, 'UTC') < $3) days
           group by 1, 2 order by 6, 1, 2"#,
        by.as_str(),
        from,
        to
    );
    Ok(rows.fetch_all(pool).await?)
}
