//! Looks at what was spent, and tells of each threshold once: the row of the alert, which the database has once for a budget, a
//! period and a threshold, and its messages are one transaction. The period before is looked at as well: between two looks it may end,
//! and usage is posted after it was used.

pub mod list;

use std::collections::HashSet;
use std::time::Duration;

use admission::Limit;
use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::{DateTime, TimeDelta, Utc};
use contracts::entitlements::{LimitPeriod, LimitScope};
use identity::OrganizationId;
use serde_json::json;
use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::evaluate::{Threshold, crossed, period_before, period_of};
use super::limits;
use super::spent::{Part, Spender, spent};
use super::webhooks::deliveries;
use crate::aside;
use crate::error::Error;
use crate::state::AppState;
use crate::subscriptions::period::Period;

const TASK: &str = "budget-alerts";
const POLL: Duration = Duration::from_secs(15);
const PAGE: i64 = 500;
/// So long after its end a period is looked at once more: long enough for usage that waited for a service that was away, and short enough
/// that most looks at a day or a month are one.
const LATE: TimeDelta = TimeDelta::hours(6);

/// Alerts by the budgets of a minute of one organization, in twenty-four hours at most. What they would tell beyond is not told.
const MOST_OF_MINUTES: i64 = 3_000;
/// The same by all others: more than as many budgets of a day as there may be tell, unless their limits are changed again and again.
const MOST_OF_OTHERS: i64 = 5_000;

chassis::define_id!(
    /// Something the organization was told.
    AlertId, "alr"
);

struct Watched {
    id: Uuid,
    organization_id: Uuid,
    name: String,
    scope: String,
    scope_id: String,
    period: String,
    limit_micros: i64,
    currency: String,
    hard: bool,
    thresholds: Vec<i32>,
    forecast: bool,
    limited_since: DateTime<Utc>,
}

/// Budgets, and the beginnings of the periods in which they refused.
type Refused = HashSet<(Uuid, DateTime<Utc>)>;

/// Looks until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    keep_running(TASK, stop, POLL, || async {
        evaluate_all(state).await?;
        Ok(())
    })
    .await;
}

/// Looks at every budget that has something to tell; returns how many alerts are new. One that cannot be looked at keeps no other.
///
/// # Errors
/// The database's.
pub async fn evaluate_all(state: &AppState) -> Result<usize, Error> {
    let (mut after, mut told) = (Uuid::nil(), 0);
    loop {
        let page = sqlx::query_as!(
            Watched,
            r#"select id, organization_id, name, scope, scope_id, period, limit_micros, currency, hard, thresholds, forecast,
                 coalesce(limited_since, updated_at) as "limited_since!" from budgets
               where id > $1 and deleted_at is null and (forecast or hard or cardinality(thresholds) > 0)
                 and (next_at is null or next_at <= $3) order by id limit $2"#,
            after,
            PAGE,
            state.clock.now()
        )
        .fetch_all(&state.pool)
        .await?;
        let Some(last) = page.last() else { return Ok(told) };
        after = last.id;
        let refused = refused(state, &page).await;
        for budget in &page {
            told += one(state, budget, &refused).await?;
        }
    }
}

/// Looks at a budget, and sets it aside when that fails.
async fn one(state: &AppState, budget: &Watched, refused: &Refused) -> Result<usize, Error> {
    let told = evaluate(state, budget, refused).await;
    let Err(error) = &told else { return told };
    let Some(pause) = aside::pause(TASK, budget.id, error) else { return told };
    sqlx::query!("update budgets set next_at = $2 where id = $1", budget.id, state.clock.now() + pause).execute(&state.pool).await?;
    Ok(0)
}

async fn evaluate(state: &AppState, budget: &Watched, refused: &Refused) -> Result<usize, Error> {
    let now = state.clock.now();
    let length = limits::period(&budget.period)?;
    let period = period_of(length, now);
    let ended = period_before(length, period);
    // What was no budget then, or another one, has nothing to tell of it; and what would have come is known by now.
    let late = now < ended.end + LATE && budget.limited_since < ended.end && (budget.hard || !budget.thresholds.is_empty());
    let mut told = if late { look(state, budget, refused, (length, ended, false)).await? } else { 0 };
    told += look(state, budget, refused, (length, period, budget.forecast)).await?;
    Ok(told)
}

async fn look(
    state: &AppState,
    budget: &Watched,
    refused: &Refused,
    (length, period, forecast): (LimitPeriod, Period, bool),
) -> Result<usize, Error> {
    let (now, has_refused) = (state.clock.now(), refused.contains(&(budget.id, period.start)));
    // What was spent is a sum, and asked only where something is told by it.
    if budget.thresholds.is_empty() && !forecast && !has_refused {
        return Ok(0);
    }
    let spent = spent(&state.pool, &spender(budget)?, length, period).await?;
    let thresholds: Vec<u32> = budget.thresholds.iter().filter_map(|percent| u32::try_from(*percent).ok()).collect();
    let mut crossed = crossed(spent, budget.limit_micros, &thresholds, forecast, period, now);
    if has_refused {
        crossed.push(Threshold::Refused);
    }
    if crossed.is_empty() {
        return Ok(0);
    }
    in_transaction!(state.pool, |transaction| {
        let mut told = 0;
        for threshold in &crossed {
            told += usize::from(tell(state, transaction, budget, period, *threshold, spent, now).await?);
        }
        Ok(told)
    })
}

/// Which hard budgets refused a request, and in the periods that began when, by what the gateway notes in Redis. While that is away what was
/// spent is told all the same.
async fn refused(state: &AppState, page: &[Watched]) -> Refused {
    let (mut whose, mut asked) = (Vec::new(), Vec::new());
    for budget in page.iter().filter(|budget| budget.hard) {
        // Another one keeps no other: `one` sets it aside.
        let (Ok(length), Ok(scope)) = (limits::period(&budget.period), limits::scope(&budget.scope)) else { continue };
        let period = period_of(length, state.clock.now());
        for start in [period.start, period_before(length, period).start] {
            let organization = OrganizationId::from_uuid(budget.organization_id);
            whose.push((budget.id, start));
            asked.push((Limit::spend_key(organization, scope, &budget.scope_id, length, start.timestamp()), budget.limit_micros));
        }
    }
    let answers = state.admissions.have_refused(&asked).await.unwrap_or_else(|error| {
        tracing::warn!(error.message = error.category(), "whether budgets refuse is not known while Redis is away");
        Vec::new()
    });
    whose.into_iter().zip(answers).filter_map(|(whose, refused)| refused.then_some(whose)).collect()
}

/// Those whom the budget is for.
fn spender(budget: &Watched) -> Result<Spender, Error> {
    let id = &budget.scope_id;
    let part = match limits::scope(&budget.scope)? {
        LimitScope::Organization => Some(Part::Whole),
        LimitScope::User => id.parse().ok().map(Part::User),
        LimitScope::ApiKey => id.parse().ok().map(Part::Key),
        LimitScope::Model => Some(Part::Model(id.clone())),
        LimitScope::Tag => Some(Part::Tag(id.clone())),
    };
    // Never wider than it was meant [B19]: a scope that names nobody spends nothing.
    let part = part.ok_or(Error::Internal("a budget is for nobody"))?;
    Ok(Spender { organization: OrganizationId::from_uuid(budget.organization_id), part, currency: budget.currency.clone() })
}

/// Tells of a threshold, unless it was told; whether it is new.
async fn tell(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    budget: &Watched,
    period: Period,
    threshold: Threshold,
    spent: i64,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let (id, of_minute) = (AlertId::new(&state.clock, &state.random), limits::period(&budget.period)? == LimitPeriod::Minute);
    let inserted = sqlx::query!(
        "insert into budget_alerts (id, budget_id, organization_id, period_start, threshold, spent_micros, limit_micros, currency, created_at)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9
         where (select count(*) from (
           select from budget_alerts a where a.organization_id = $3 and a.created_at > $9::timestamptz - interval '1 day'
             and (select b.period = 'minute' from budgets b where b.id = a.budget_id) = $11 limit $10) told) < $10
         on conflict on constraint budget_alerts_once do nothing",
        id.uuid(),
        budget.id,
        budget.organization_id,
        period.start,
        threshold.text(),
        spent,
        budget.limit_micros,
        budget.currency,
        now,
        if of_minute { MOST_OF_MINUTES } else { MOST_OF_OTHERS },
        of_minute
    )
    .execute(&mut **transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    let payload = json!({
        "type": "budget.threshold_reached",
        "timestamp": now,
        "data": {
            "alert_id": id,
            "budget_id": super::BudgetId::from_uuid(budget.id),
            "name": budget.name,
            "scope": budget.scope,
            "scope_id": budget.scope_id,
            "threshold": threshold.text(),
            "period": period,
            "spent_micros": spent,
            "limit_micros": budget.limit_micros,
            "currency": budget.currency,
        },
    });
    let organization = OrganizationId::from_uuid(budget.organization_id);
    deliveries::enqueue(state, transaction, organization, &id.to_string(), "budget.threshold_reached", &payload).await?;
    Ok(true)
}
