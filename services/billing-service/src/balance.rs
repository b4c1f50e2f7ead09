//! `GET /v1/balance`: what the organization has.

use axum::Json;
use axum::extract::State;
use chassis::in_transaction;
use chassis::problem::ProblemBody;
use identity::{Authenticated, OrganizationId, Scope};
use money::Currency;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::ledger::{self, Balances};
use crate::state::AppState;
use crate::{leases, organizations};

/// What the organization has, in micro-units of the currency.
#[derive(Debug, Serialize, ToSchema)]
pub struct Balance {
    /// ISO 4217 code.
    #[schema(example = "USD")]
    currency: &'static str,
    /// What can be spent now, also from a lease; below zero when something is owed.
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
    let balances = balances(&state, principal.organization_id).await?;
    let leased = leases::unspent(&state, principal.organization_id).await?;
    let (available, held) = (balances.available() + leased, balances.held - leased);
    Ok(Json(Balance { currency: Currency::USD.code(), available_micros: available, held_micros: held, posted_micros: available + held }))
}

/// A look takes no lock: it must not wait for settlements, nor they for it. Only the first one of all makes the wallet.
async fn balances(state: &AppState, organization: OrganizationId) -> Result<Balances, Error> {
    if let Some(balances) = ledger::balances(&state.pool, organization).await? {
        return Ok(balances);
    }
    in_transaction!(state.pool, |transaction| {
        organizations::ensure_wallet(state, transaction, organization).await?;
        ledger::balances(&mut **transaction, organization).await?.ok_or(Error::Internal("a wallet has no accounts"))
    })
}
