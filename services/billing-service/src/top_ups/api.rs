//! `GET` and `PUT /v1/auto-top-up`.

use axum::extract::State;
use chassis::Problem;
use chassis::http::Json;
use chassis::in_transaction;
use chassis::problem::ProblemBody;
use identity::{Authenticated, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgExecutor;
use utoipa::ToSchema;

use super::MOST;
use crate::audit::{self, Decision};
use crate::catalog::amount::minor_micros;
use crate::error::Error;
use crate::ledger::CREDIT;
use crate::organizations::ensure_wallet;
use crate::portal;
use crate::state::AppState;
use crate::subscriptions::store;

/// When and how much credit is bought by itself.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoTopUp {
    /// Whether it is on. It goes off by itself after three failures in a row.
    enabled: bool,
    /// Below this much available credit something is bought, in micro-units. Credit that only pays for some models or features does not
    /// count.
    #[schema(minimum = 0, maximum = 999_999_990_000_i64, example = 5_000_000)]
    threshold_micros: i64,
    /// What is bought at least, in micro-units; more where that is needed to get above the threshold.
    #[schema(minimum = 1_000_000, maximum = 999_999_990_000_i64, example = 20_000_000)]
    amount_micros: i64,
    /// What is bought in a calendar month (UTC) at most, in micro-units.
    #[schema(example = 100_000_000)]
    monthly_cap_micros: i64,
}

impl AutoTopUp {
    fn check(&self) -> Result<(), Problem> {
        let unit = minor_micros(CREDIT);
        if !(0..=MOST).contains(&self.threshold_micros) {
            return Err(Problem::invalid_field("threshold_micros", "must be from 0 to 999999990000"));
        }
        if !(1_000_000..=MOST).contains(&self.amount_micros) || self.amount_micros % unit != 0 {
            return Err(Problem::invalid_field("amount_micros", "must be from 1000000 to 999999990000 and whole cents"));
        }
        if self.monthly_cap_micros < self.amount_micros {
            return Err(Problem::invalid_field("monthly_cap_micros", "must be at least amount_micros"));
        }
        Ok(())
    }
}

/// How credit is topped up.
#[utoipa::path(get, path = "/v1/auto-top-up", tag = "payments", security(("bearer" = [])),
    responses((status = 200, body = AutoTopUp), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody, description = "It was never set")))]
pub async fn get(State(state): State<AppState>, Authenticated(principal): Authenticated) -> Result<axum::Json<AutoTopUp>, Error> {
    principal.require(Scope::BillingRead)?;
    Ok(axum::Json(read(&state.pool, principal.organization_id).await?))
}

/// Set how credit is topped up. It is paid with the card that paid on a checkout page last, or was made the default one in the portal; there must be one. A top-up that finds
/// none later is not collected from the next one that comes: it has failed.
#[utoipa::path(put, path = "/v1/auto-top-up", tag = "payments", request_body = AutoTopUp, security(("bearer" = [])),
    responses((status = 200, body = AutoTopUp), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "The organization has nothing to pay with yet, or pays in another currency than that of credit"),
        (status = 422, body = ProblemBody), (status = 501, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn put(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Json(wanted): Json<AutoTopUp>,
) -> Result<axum::Json<AutoTopUp>, Error> {
    principal.require(Scope::BillingWrite)?;
    if state.stripe.is_none() && wanted.enabled {
        return Err(Error::NoStripe);
    }
    wanted.check()?;
    if wanted.enabled {
        pays_in_credit(&state, principal.organization_id).await?;
        is_payable(&state, principal.organization_id).await?;
    }
    write(&state, &Decision::of_caller(&state, &principal, "PUT /v1/auto-top-up"), principal.organization_id, &wanted).await?;
    Ok(axum::Json(read(&state.pool, principal.organization_id).await?))
}

/// A top-up buys what it costs: it is for who pays in the currency of credit. Who pays in another buys packs.
async fn pays_in_credit(state: &AppState, organization: OrganizationId) -> Result<(), Error> {
    let mut connection = state.pool.acquire().await?;
    let other = store::currency(&mut connection, organization).await?.filter(|currency| *currency != CREDIT);
    let Some(currency) = other else { return Ok(()) };
    let problem = Problem::conflict("currency_of_top_up", "Credit is topped up in another currency than you pay in");
    let rule = format!("must be false: top-ups are in {CREDIT}, and you pay in {currency}; credit packs are sold in it");
    Err(problem.field("enabled", rule).into())
}

/// Without anything to pay with each top-up would fail, until it is off. Who has it on already may always lower it.
async fn is_payable(state: &AppState, organization: OrganizationId) -> Result<(), Error> {
    let is_on = match read(&state.pool, organization).await {
        Err(Error::NotFound) => false,
        before => before?.enabled,
    };
    if is_on || portal::has_payment_method(state, organization).await? {
        return Ok(());
    }
    let problem = Problem::conflict("no_payment_method", "There is no card that a top-up could be paid with");
    Err(problem.field("enabled", "must be false until something was bought, or a card was made the default one in the portal").into())
}

/// Cards are charged by it: who set it is logged with it [B-78].
async fn write(state: &AppState, decision: &Decision, organization: OrganizationId, wanted: &AutoTopUp) -> Result<(), Error> {
    in_transaction!(state.pool, |transaction| {
        ensure_wallet(state, transaction, organization).await?;
        let before = match read(&mut **transaction, organization).await {
            Err(Error::NotFound) => Value::Null,
            before => json!(before?),
        };
        let after = json!(wanted);
        let change =
            audit::Change { action: "auto_top_up.set", organization: Some(organization), request: &after, before: &before, after: &after };
        audit::record(state, transaction, decision, &change).await?;
        sqlx::query!(
            "insert into auto_top_ups (organization_id, enabled, threshold_micros, amount_micros, monthly_cap_micros, next_at, updated_at)
             values ($1, $2, $3, $4, $5, $6, $6)
             on conflict (organization_id) do update set enabled = excluded.enabled, threshold_micros = excluded.threshold_micros,
                amount_micros = excluded.amount_micros, monthly_cap_micros = excluded.monthly_cap_micros, failures = 0,
                next_at = excluded.next_at, updated_at = excluded.updated_at",
            organization.uuid(),
            wanted.enabled,
            wanted.threshold_micros,
            wanted.amount_micros,
            wanted.monthly_cap_micros,
            state.clock.now()
        )
        .execute(&mut **transaction)
        .await?;
        Ok(())
    })
}

async fn read(executor: impl PgExecutor<'_>, organization: OrganizationId) -> Result<AutoTopUp, Error> {
    let setting = sqlx::query_as!(
        AutoTopUp,
        "select enabled, threshold_micros, amount_micros, monthly_cap_micros from auto_top_ups where organization_id = $1",
        organization.uuid()
    );
    setting.fetch_optional(executor).await?.ok_or(Error::NotFound)
}
