//! `/v1/budgets`.

use axum::extract::State;
use chassis::Problem;
use chassis::http::{Json, Path};
use chassis::idempotency::{Answer, Begun, Call, begin};
use chassis::in_transaction;
use chassis::problem::ProblemBody;
use contracts::entitlements::{LimitPeriod, LimitScope};
use http::{HeaderMap, StatusCode};
use identity::{ApiKeyId, Authenticated, Scope, UserId};
use money::Currency;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BudgetId, store};
use crate::audit::Decision;
use crate::error::Error;
use crate::state::AppState;

/// A budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Budget {
    /// Its id.
    pub id: BudgetId,
    /// What people call it.
    pub name: String,
    /// Whom it is for.
    pub scope: LimitScope,
    /// Which user, key, model or tag; empty for the organization.
    pub scope_id: String,
    /// For how long it counts; calendar periods in UTC.
    pub period: LimitPeriod,
    /// In micro-units.
    pub limit_micros: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// Whether what would exceed it is refused. The organization is told of the first refusal of a period, as `refused`: what could be used is
    /// refused by its worst case, so that what was spent stays below the limit.
    pub hard: bool,
    /// Percent of the limit at which the organization is told.
    pub thresholds: Vec<u32>,
    /// Whether it is told that the limit will be exceeded at the pace so far.
    pub forecast: bool,
}

/// A budget to make.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBudget {
    /// What people call it.
    #[schema(max_length = 100)]
    pub name: String,
    /// Whom it is for.
    pub scope: LimitScope,
    /// Which user, key, model or tag; absent for the organization.
    #[serde(default)]
    pub scope_id: String,
    /// For how long it counts.
    pub period: LimitPeriod,
    /// In micro-units.
    #[schema(minimum = 1)]
    pub limit_micros: i64,
    /// ISO 4217 code.
    #[schema(example = "USD")]
    pub currency: String,
    /// Whether what would exceed it is refused. The organization is told of the first refusal of a period, as `refused`: what could be used is
    /// refused by its worst case, so that what was spent stays below the limit.
    #[serde(default)]
    pub hard: bool,
    /// Percent of the limit at which the organization is told; 50, 80 and 100 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<u32>>,
    /// Whether it is told that the limit will be exceeded at the pace so far.
    #[serde(default)]
    pub forecast: bool,
}

/// What to change; what is absent stays.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetChange {
    /// What people call it.
    pub name: Option<String>,
    /// In micro-units.
    pub limit_micros: Option<i64>,
    /// Whether what would exceed it is refused. The organization is told of the first refusal of a period, as `refused`: what could be used is
    /// refused by its worst case, so that what was spent stays below the limit.
    pub hard: Option<bool>,
    /// Percent of the limit at which the organization is told.
    pub thresholds: Option<Vec<u32>>,
    /// Whether it is told that the limit will be exceeded at the pace so far.
    pub forecast: Option<bool>,
}

/// The budgets of the organization.
#[derive(Debug, Serialize, ToSchema)]
pub struct BudgetList {
    /// Newest first.
    data: Vec<Budget>,
}

impl NewBudget {
    /// Percent of the limit at which the organization is told.
    #[must_use]
    pub fn told_at(&self) -> &[u32] {
        self.thresholds.as_deref().unwrap_or(&[50, 80, 100])
    }
}

/// The organization's budgets.
#[utoipa::path(get, path = "/v1/budgets", tag = "budgets", security(("bearer" = [])),
    responses((status = 200, body = BudgetList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(State(state): State<AppState>, Authenticated(principal): Authenticated) -> Result<axum::Json<BudgetList>, Error> {
    principal.require(Scope::BillingRead)?;
    let mut connection = state.pool.acquire().await?;
    Ok(axum::Json(BudgetList { data: store::list(&mut connection, principal.organization_id).await? }))
}

/// Make a budget.
#[utoipa::path(post, path = "/v1/budgets", tag = "budgets", request_body = NewBudget, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key has no second effect and the same answer")),
    responses((status = 201, body = Budget), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "There are as many budgets as an organization may have"), (status = 422, body = ProblemBody),
        (status = 429, body = ProblemBody, description = "Budgets were changed as often in a day as they may be")))]
pub async fn create(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    headers: HeaderMap,
    Json(new): Json<NewBudget>,
) -> Result<Answer, Error> {
    principal.require(Scope::BillingWrite)?;
    check(&new)?;
    let call = Call::new(&headers, &principal.organization_id.to_string(), "POST /v1/budgets", &new)?;
    match begin::<Error>(&state.pool, &state.clock, call).await? {
        Begun::Recorded(answer) => Ok(answer),
        Begun::Open(mut open) => {
            let decision = Decision::of_caller(&state, &principal, "POST /v1/budgets");
            let budget = store::insert(&state, &mut open.transaction, principal.organization_id, &new, &decision).await?;
            Ok(open.finish(Answer::json(StatusCode::CREATED, &budget)).await?)
        }
    }
}

/// Change a budget. Repeating it changes nothing more.
#[utoipa::path(patch, path = "/v1/budgets/{id}", tag = "budgets", request_body = BudgetChange, security(("bearer" = [])),
    params(("id" = BudgetId, Path, description = "The budget")),
    responses((status = 200, body = Budget), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 429, body = ProblemBody, description = "Budgets were changed as often in a day as they may be")))]
pub async fn change(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Path(id): Path<BudgetId>,
    Json(change): Json<BudgetChange>,
) -> Result<axum::Json<Budget>, Error> {
    principal.require(Scope::BillingWrite)?;
    check_change(&change)?;
    let decision = Decision::of_caller(&state, &principal, "PATCH /v1/budgets");
    let budget = in_transaction!(state.pool, |transaction| {
        store::update(&state, transaction, principal.organization_id, id, &change, &decision).await
    })?;
    Ok(axum::Json(budget))
}

/// End a budget.
#[utoipa::path(delete, path = "/v1/budgets/{id}", tag = "budgets", security(("bearer" = [])), params(("id" = BudgetId, Path, description = "The budget")),
    responses((status = 204), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 429, body = ProblemBody, description = "Budgets were changed as often in a day as they may be")))]
pub async fn delete(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Path(id): Path<BudgetId>,
) -> Result<StatusCode, Error> {
    principal.require(Scope::BillingWrite)?;
    let decision = Decision::of_caller(&state, &principal, "DELETE /v1/budgets");
    in_transaction!(state.pool, |transaction| { store::delete(&state, transaction, principal.organization_id, id, &decision).await })?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(new: &NewBudget) -> Result<(), Problem> {
    // Usage is priced in it, and a budget in another would never count anything.
    if new.currency.parse::<Currency>().map_err(|error| Problem::invalid_field("currency", error.to_string()))? != Currency::USD {
        return Err(Problem::invalid_field("currency", "must be USD, the currency that usage is priced in"));
    }
    let known = match new.scope {
        LimitScope::Organization => new.scope_id.is_empty(),
        LimitScope::User => new.scope_id.parse::<UserId>().is_ok(),
        LimitScope::ApiKey => new.scope_id.parse::<ApiKeyId>().is_ok(),
        LimitScope::Model => (1..=200).contains(&new.scope_id.chars().count()),
        LimitScope::Tag => is_tag(&new.scope_id),
    };
    if !known {
        return Err(Problem::invalid_field(
            "scope_id",
            "must be the user's or key's id, a model, a tag without commas, control characters or blanks around it, or absent for the organization",
        ));
    }
    check_fields(Some(&new.name), Some(new.limit_micros), new.thresholds.as_deref())
}

fn check_change(change: &BudgetChange) -> Result<(), Problem> {
    check_fields(change.name.as_deref(), change.limit_micros, change.thresholds.as_deref())
}

/// Whether a request can have it: they come in one header, separated by commas, and what else was a tag here would never be met.
fn is_tag(text: &str) -> bool {
    (1..=100).contains(&text.chars().count()) && text.trim() == text && !text.contains(|c: char| c == ',' || c.is_control())
}

fn check_fields(name: Option<&str>, limit: Option<i64>, thresholds: Option<&[u32]>) -> Result<(), Problem> {
    if name.is_some_and(|name| !(1..=100).contains(&name.chars().count())) {
        return Err(Problem::invalid_field("name", "must have 1 to 100 characters"));
    }
    if limit.is_some_and(|limit| limit <= 0) {
        return Err(Problem::invalid_field("limit_micros", "must be more than zero"));
    }
    let ascending = |thresholds: &[u32]| thresholds.windows(2).all(|pair| pair[0] < pair[1]);
    let fine = |thresholds: &[u32]| {
        thresholds.len() <= 10 && thresholds.iter().all(|percent| (1..=1000).contains(percent)) && ascending(thresholds)
    };
    if thresholds.is_some_and(|thresholds| !fine(thresholds)) {
        return Err(Problem::invalid_field("thresholds", "must be at most ten percentages from 1 to 1000, ascending"));
    }
    Ok(())
}
