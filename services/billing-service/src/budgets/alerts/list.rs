//! `GET /v1/budget-alerts`: what the organization was told, also where no endpoint was there to be told it.

use axum::extract::State;
use chassis::cursor::{CursorKey, Page};
use chassis::http::Query;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use identity::{Authenticated, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::AlertId;
use crate::budgets::BudgetId;
use crate::error::Error;
use crate::state::AppState;

const PAGE: usize = 100;

/// Something the organization was told.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetAlert {
    /// Its id, which is the `message_id` of its deliveries.
    id: AlertId,
    /// Of which budget, which may have ended since.
    budget_id: BudgetId,
    /// The first instant of the period that it is about.
    period_start: DateTime<Utc>,
    /// `percent:N` of the limit, `forecast`, or `refused`: it is a hard one, and a request could have cost more than was left.
    #[schema(example = "percent:80")]
    threshold: String,
    /// What was spent in the period when it was noticed, in micro-units.
    spent_micros: i64,
    /// What the limit was, in micro-units.
    limit_micros: i64,
    /// ISO 4217 code.
    currency: String,
    /// When it was noticed.
    created_at: DateTime<Utc>,
}

/// Which alerts, and where the list goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AlertQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Of this budget only.
    budget_id: Option<BudgetId>,
}

/// What the organization was told of its budgets, newest first.
#[utoipa::path(get, path = "/v1/budget-alerts", operation_id = "list_budget_alerts", tag = "budgets", params(AlertQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<BudgetAlert>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<AlertQuery>,
) -> Result<axum::Json<Page<BudgetAlert>>, Error> {
    principal.require(Scope::BillingRead)?;
    let cursors = CursorKey::derive(&state.config.secret, "budget alerts");
    let after: Option<(DateTime<Utc>, Uuid)> = query.cursor.map(|cursor| cursors.decode(&cursor)).transpose()?;
    let rows = rows(&state, principal.organization_id, query.budget_id, after).await?;
    Ok(axum::Json(cursors.page(rows, PAGE, |last| (last.created_at, last.id.uuid()))))
}

async fn rows(
    state: &AppState,
    organization: OrganizationId,
    budget: Option<BudgetId>,
    after: Option<(DateTime<Utc>, Uuid)>,
) -> Result<Vec<BudgetAlert>, Error> {
    let (after_time, after_id) = after.unzip();
    let rows = sqlx::query!(
        "select id, budget_id, period_start, threshold, spent_micros, limit_micros, currency, created_at from budget_alerts
         where organization_id = $1 and ($2::uuid is null or budget_id = $2) and ($3::timestamptz is null or (created_at, id) < ($3, $4))
         order by created_at desc, id desc limit $5",
        organization.uuid(),
        budget.map(BudgetId::uuid),
        after_time,
        after_id,
        i64::try_from(PAGE + 1).unwrap_or(i64::MAX)
    )
    .fetch_all(&state.pool)
    .await?;
    let rows = rows.into_iter().map(|row| BudgetAlert {
        id: AlertId::from_uuid(row.id),
        budget_id: BudgetId::from_uuid(row.budget_id),
        period_start: row.period_start,
        threshold: row.threshold,
        spent_micros: row.spent_micros,
        limit_micros: row.limit_micros,
        currency: row.currency,
        created_at: row.created_at,
    });
    Ok(rows.collect())
}
