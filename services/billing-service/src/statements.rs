//! `GET /v1/statements`: what an organization had, what came and went, and what it has, for a period, as JSON, CSV or a page to print.

mod build;
mod page;
mod table;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::Problem;
use chassis::http::Query;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, header};
use identity::{Authenticated, Scope};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::error::Error;
use crate::places::PATIENCE;
use crate::state::AppState;

pub use build::{Movement, Statement, StatementBalance, read};

/// The longest period that one statement may cover.
const LONGEST_DAYS: i64 = 366;

/// How a statement is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = StatementFormat)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
    /// For printers.
    Html,
}

/// Which statement.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct StatementQuery {
    /// The period begins at this instant (RFC 3339).
    from: DateTime<Utc>,
    /// It ends before this instant; at most 366 days later.
    to: DateTime<Utc>,
    /// `json`, `csv` or `html`; what `Accept` asks for when absent, else JSON.
    #[param(inline)]
    format: Option<Format>,
}

impl StatementQuery {
    fn check(&self) -> Result<(), Problem> {
        if self.from >= self.to {
            return Err(Problem::invalid_field("to", "must be after from"));
        }
        if (self.to - self.from).num_days() > LONGEST_DAYS {
            return Err(Problem::invalid_field("to", "must be at most 366 days after from"));
        }
        Ok(())
    }

    /// What was asked for by name, else by the first media type of `Accept` that we write.
    fn format(&self, headers: &HeaderMap) -> Format {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let named = |media: &str| match media.split(';').next().unwrap_or_default().trim() {
            "application/json" => Some(Format::Json),
            "text/csv" => Some(Format::Csv),
            "text/html" => Some(Format::Html),
            _ => None,
        };
        self.format.or_else(|| accept.split(',').find_map(named)).unwrap_or(Format::Json)
    }
}

/// The organization's statement for a period. What requests cost is one line for each day (UTC); holds are no movements.
#[utoipa::path(get, path = "/v1/statements", operation_id = "statement", tag = "ledger", params(StatementQuery), security(("bearer" = [])),
    responses((status = 200, content((Statement = "application/json"), (String = "text/csv"), (String = "text/html"))),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 429, body = ProblemBody, description = "Two balances or statements of other times are being read already")))]
pub async fn get(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<StatementQuery>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    principal.require(Scope::BillingRead)?;
    query.check()?;
    let _place = state.histories.wait(principal.organization_id, PATIENCE).await?;
    let statement = read(&state.pool, principal.organization_id, query.from, query.to).await?;
    Ok(render(&statement, query.format(&headers)))
}

fn render(statement: &Statement, format: Format) -> Response {
    let with = |media: &'static str, body: String| ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], body);
    let mut response = match format {
        Format::Json => Json(statement).into_response(),
        Format::Csv => with("text/csv; charset=utf-8", table::csv(statement)).into_response(),
        Format::Html => with("text/html; charset=utf-8", page::html(statement)).into_response(),
    };
    if format == Format::Html {
        // The page brings its style and nothing else.
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    }
    if format == Format::Csv {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"statement.csv\""));
    }
    response
}
