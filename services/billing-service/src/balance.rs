//! `GET /v1/balance`: what the organization has.

use axum::Json;
use axum::extract::State;
use chassis::in_transaction;
use chassis::problem::ProblemBody;
use identity::{Authenticated, Scope};
use money::Currency;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::state::AppState;
use crate::{ledger, organizations};

/// What the organization has, in micro-units of the currency.
#[derive(Debug, Serialize, ToSchema)]
pub struct Balance {
    /// ISO 4217 code.
    #[schema(example = "USD")]
    currency: &'static str,
    /// What can be spent now; below zero when something is owed.
    available_micros: i64,
    /// What is held for requests under way.
    held_micros: i64,
    /// Both together.
    posted_micros: i64,
}

/// The organization's balance.
#[utoipa::path(get, path = "/v1/balance", tag = "balance", security(("bearer" = [])),
    responses((status = 200, body = Balance), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn get(State(state): State<AppState>, Authenticated(principal): Authenticated) -> Result<Json<Balance>, Error> {
    principal.require(Scope::BillingRead)?;
    let balances = in_transaction!(state.pool, |transaction| {
        organizations::ensure_wallet(&state, transaction, principal.organization_id).await?;
        ledger::lock(transaction, principal.organization_id).await
    })?;
    let available = balances.wallet - balances.debt;
    Ok(Json(Balance {
        currency: Currency::USD.code(),
        available_micros: available,
        held_micros: balances.held,
        posted_micros: available + balances.held,
    }))
}
