//! Budgets in the database. A change of a hard one changes what the organization may do, in the same transaction.

use std::time::Duration;

use chassis::Problem;
use contracts::entitlements::{LimitPeriod, LimitScope};
use http::StatusCode;
use identity::OrganizationId;
use sqlx::{PgConnection, Postgres, Transaction};

use super::api::{Budget, BudgetChange, NewBudget};
use super::{BudgetId, limits};
use crate::audit::{self, Change, Decision};
use crate::entitlements;
use crate::error::Error;
use crate::state::AppState;

/// Rows of a list; an organization has a handful.
const MOST: i64 = 1000;
/// Changes of an organization in twenty-four hours: as many budgets as there may be, each hour.
const MOST_LOGGED: i64 = 5_000;
/// Budgets of an organization: each is looked at again and again.
const MOST_OF_ONE: i64 = 200;

struct Row {
    id: uuid::Uuid,
    name: String,
    scope: String,
    scope_id: String,
    period: String,
    limit_micros: i64,
    currency: String,
    hard: bool,
    thresholds: Vec<i32>,
    forecast: bool,
}

impl TryFrom<Row> for Budget {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: BudgetId::from_uuid(row.id),
            name: row.name,
            scope: limits::scope(&row.scope)?,
            scope_id: row.scope_id,
            period: limits::period(&row.period)?,
            limit_micros: row.limit_micros,
            currency: row.currency,
            hard: row.hard,
            thresholds: row.thresholds.into_iter().filter_map(|percent| u32::try_from(percent).ok()).collect(),
            forecast: row.forecast,
        })
    }
}

/// Writes a new budget.
///
/// # Errors
/// The database's.
pub async fn insert(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    new: &NewBudget,
    decision: &Decision,
) -> Result<Budget, Error> {
    // One at a time of an organization, so that the limit is not passed.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('budgets ' || $1, 0))", organization.to_string())
        .execute(&mut **transaction)
        .await?;
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from budgets where organization_id = $1 and deleted_at is null"#,
        organization.uuid()
    );
    if count.fetch_one(&mut **transaction).await? >= MOST_OF_ONE {
        return Err(Problem::conflict("too_many_budgets", "There are as many budgets as an organization may have").into());
    }
    let id = BudgetId::new(&state.clock, &state.random);
    let (scope, period): (LimitScope, LimitPeriod) = (new.scope, new.period);
    sqlx::query!(
        "insert into budgets (id, organization_id, name, scope, scope_id, period, limit_micros, currency, hard, thresholds, forecast, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)",
        id.uuid(),
        organization.uuid(),
        new.name,
        scope.as_str(),
        new.scope_id,
        period.as_str(),
        new.limit_micros,
        new.currency,
        new.hard,
        &percents(new.told_at()),
        new.forecast,
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    if new.hard {
        entitlements::changed(state, transaction, organization).await?;
    }
    let made = find(transaction, organization, id).await?;
    log(state, transaction, decision, Logged { action: "budget.create", organization, before: None, after: Some(&made) }).await?;
    Ok(made)
}

/// A change of a budget, for the log: what customers want to spend at most is what keeps them from spending more.
struct Logged<'a> {
    action: &'static str,
    organization: OrganizationId,
    before: Option<&'a Budget>,
    after: Option<&'a Budget>,
}

/// # Errors
/// 429 where as many changes of the organization were logged in a day as may: the log is kept for ever.
async fn log(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    decision: &Decision,
    logged: Logged<'_>,
) -> Result<(), Error> {
    let Logged { action, organization, before, after } = logged;
    let one_too_many = sqlx::query_scalar!(
        r#"select exists (select from (select at from audit_log where organization_id = $1 order by id desc offset $2 limit 1) oldest
             where at > $3::timestamptz - interval '1 day') as "is!""#,
        organization.uuid(),
        MOST_LOGGED - 1,
        state.clock.now()
    );
    if one_too_many.fetch_one(&mut **transaction).await? {
        let title = "Budgets were changed as often in a day as they may be";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_changes", title).retry_after(Duration::from_hours(1)).into());
    }
    let told = |budget: Option<&Budget>| serde_json::to_value(budget).map_err(|_| Error::Internal("a budget cannot be told"));
    let change = Change {
        action,
        organization: Some(organization),
        request: &told(after.or(before))?,
        before: &told(before)?,
        after: &told(after)?,
    };
    audit::record(state, transaction, decision, &change).await
}

/// A budget of the organization.
///
/// # Errors
/// [`Error::NotFound`]; the database's.
pub async fn find(connection: &mut PgConnection, organization: OrganizationId, id: BudgetId) -> Result<Budget, Error> {
    sqlx::query_as!(
        Row,
        "select id, name, scope, scope_id, period, limit_micros, currency, hard, thresholds, forecast from budgets
         where organization_id = $1 and id = $2 and deleted_at is null",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(connection)
    .await?
    .ok_or(Error::NotFound)?
    .try_into()
}

/// A budget that nobody else changes meanwhile, so that the log has what it was before.
async fn find_locked(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: BudgetId,
) -> Result<Budget, Error> {
    sqlx::query!("select id from budgets where organization_id = $1 and id = $2 for no key update", organization.uuid(), id.uuid())
        .fetch_optional(&mut **transaction)
        .await?;
    find(transaction, organization, id).await
}

/// The budgets of the organization, newest first.
///
/// # Errors
/// The database's.
pub async fn list(connection: &mut PgConnection, organization: OrganizationId) -> Result<Vec<Budget>, Error> {
    let rows = sqlx::query_as!(
        Row,
        "select id, name, scope, scope_id, period, limit_micros, currency, hard, thresholds, forecast from budgets
         where organization_id = $1 and deleted_at is null order by created_at desc, id desc limit $2",
        organization.uuid(),
        MOST
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Changes what is named.
///
/// # Errors
/// [`Error::NotFound`]; the database's.
pub async fn update(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: BudgetId,
    change: &BudgetChange,
    decision: &Decision,
) -> Result<Budget, Error> {
    let before = find_locked(transaction, organization, id).await?;
    sqlx::query!(
        "update budgets set name = coalesce($3, name), limit_micros = coalesce($4, limit_micros), hard = coalesce($5, hard),
                thresholds = coalesce($6, thresholds), forecast = coalesce($7, forecast), updated_at = $8
         where organization_id = $1 and id = $2 and deleted_at is null",
        organization.uuid(),
        id.uuid(),
        change.name,
        change.limit_micros,
        change.hard,
        change.thresholds.as_deref().map(percents) as Option<Vec<i32>>,
        change.forecast,
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    let after = find(transaction, organization, id).await?;
    if before.hard || after.hard {
        entitlements::changed(state, transaction, organization).await?;
    }
    // Repeating it changes nothing more.
    if before != after {
        log(state, transaction, decision, Logged { action: "budget.change", organization, before: Some(&before), after: Some(&after) })
            .await?;
    }
    Ok(after)
}

/// Ends a budget; what it told stays.
///
/// # Errors
/// [`Error::NotFound`]; the database's.
pub async fn delete(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: BudgetId,
    decision: &Decision,
) -> Result<(), Error> {
    let before = find_locked(transaction, organization, id).await?;
    let deleted = sqlx::query!(
        "update budgets set deleted_at = $3 where organization_id = $1 and id = $2 and deleted_at is null",
        organization.uuid(),
        id.uuid(),
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    if deleted.rows_affected() == 0 {
        return Err(Error::NotFound);
    }
    log(state, transaction, decision, Logged { action: "budget.delete", organization, before: Some(&before), after: None }).await?;
    entitlements::changed(state, transaction, organization).await
}

fn percents(thresholds: &[u32]) -> Vec<i32> {
    thresholds.iter().filter_map(|percent| i32::try_from(*percent).ok()).collect()
}
