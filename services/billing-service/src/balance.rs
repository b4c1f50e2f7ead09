//! `GET /v1/balance`: what the organization has, lot by lot, or had at an instant.

mod at;

use axum::Json;
use axum::extract::State;
use chassis::http::Query;
use chassis::in_transaction;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use identity::{Authenticated, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::Error;
use crate::grants::burn::expiring;
use crate::grants::{self, GrantId, Lot, Source};
use crate::ledger::{self, Balances};
use crate::places::PATIENCE;
use crate::state::AppState;
use crate::{leases, organizations};

pub use at::{before, history};

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
    /// How far below zero requests may take what is available; null for an instant of the past.
    overdraft_limit_micros: Option<i64>,
    /// The credit, lot by lot in the order in which it burns, what is held included; null for an instant of the past.
    lots: Option<Vec<BalanceLot>>,
    /// What expires next, if it is not used before; null when nothing does.
    next_expiry: Option<NextExpiry>,
}

/// A lot with something left.
#[derive(Debug, Serialize, ToSchema)]
pub struct BalanceLot {
    /// Its id.
    id: GrantId,
    /// What gave it.
    source: Source,
    /// What is left of it, in micro-units.
    remaining_micros: i64,
    /// It pays for requests before this instant and not at it; never expires when null.
    expires_at: Option<DateTime<Utc>>,
    /// The models it may pay for; all when null.
    models: Option<Vec<String>>,
    /// The features it may pay for; all when null.
    features: Option<Vec<String>>,
}

/// Credit that expires together.
#[derive(Debug, Serialize, ToSchema)]
pub struct NextExpiry {
    /// When.
    at: DateTime<Utc>,
    /// How much, in micro-units.
    amount_micros: i64,
}

/// Which balance.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct BalanceQuery {
    /// The balance as it was when this instant began (RFC 3339): everything before it counts; now, if absent.
    at: Option<DateTime<Utc>>,
}

/// The organization's balance.
#[utoipa::path(get, path = "/v1/balance", tag = "balance", params(BalanceQuery), security(("bearer" = [])),
    responses((status = 200, body = Balance), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 429, body = ProblemBody, description = "Two balances or statements of other times are being read already")))]
pub async fn get(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<BalanceQuery>,
) -> Result<Json<Balance>, Error> {
    principal.require(Scope::BillingRead)?;
    let balance = match query.at {
        Some(at) => past(&state, principal.organization_id, at).await?,
        None => now(&state, principal.organization_id).await?.spending(leased(&state, principal.organization_id).await?),
    };
    Ok(Json(balance))
}

/// What Redis does not say counts as held.
async fn leased(state: &AppState, organization: OrganizationId) -> Result<i64, Error> {
    Ok(leases::unspent(state, organization).await?.map_or(0, |unspent| unspent.all + unspent.models))
}

async fn past(state: &AppState, organization: OrganizationId, at: DateTime<Utc>) -> Result<Balance, Error> {
    let _place = state.histories.wait(organization, PATIENCE).await?;
    let mut transaction = history(&state.pool).await?;
    let balances = before(&mut transaction, organization, at).await?;
    transaction.commit().await?;
    Ok(Balance::of(balances))
}

impl Balance {
    fn of(balances: Balances) -> Self {
        let available = balances.available();
        Self {
            currency: crate::ledger::CREDIT.code(),
            available_micros: available,
            held_micros: balances.held,
            posted_micros: available + balances.held,
            overdraft_limit_micros: None,
            lots: None,
            next_expiry: None,
        }
    }

    /// With what of it lies in a lease and no request has taken: it is held in the ledger and can be spent all the same.
    fn spending(self, leased: i64) -> Self {
        Self { available_micros: self.available_micros + leased, held_micros: self.held_micros - leased, ..self }
    }

    /// With its lots. What has expired is no part of it, whether or not the sweeper has been there.
    fn with(balances: Balances, lots: Vec<Lot>, overdraft: i64, now: DateTime<Utc>) -> Self {
        let expired: i64 = expiring(&lots, now).iter().map(|(_, amount)| amount).sum();
        let balance = Self::of(Balances { wallet: balances.wallet - expired, ..balances });
        let valid = || lots.iter().filter(|lot| lot.is_valid_at(now));
        let next = valid().filter_map(|lot| lot.expires_at).min().map(|at| {
            let amount = valid().filter(|lot| lot.expires_at == Some(at)).map(|lot| lot.remaining).sum();
            NextExpiry { at, amount_micros: amount }
        });
        let lots = lots.into_iter().filter(|lot| lot.is_valid_at(now)).map(BalanceLot::from).collect();
        Self { overdraft_limit_micros: Some(overdraft), lots: Some(lots), next_expiry: next, ..balance }
    }
}

impl From<Lot> for BalanceLot {
    fn from(lot: Lot) -> Self {
        Self {
            id: lot.id,
            source: lot.source,
            remaining_micros: lot.remaining,
            expires_at: lot.expires_at,
            models: lot.models,
            features: lot.features,
        }
    }
}

/// A look takes no lock: it must not wait for settlements, nor they for it. Only the first one of all makes the wallet.
async fn now(state: &AppState, organization: OrganizationId) -> Result<Balance, Error> {
    if ledger::balances(&state.pool, organization).await?.is_none() {
        let made: Result<(), Error> =
            in_transaction!(state.pool, |transaction| { organizations::ensure_wallet(state, transaction, organization).await });
        made?;
    }
    let now = state.clock.now();
    in_transaction!(state.pool, |transaction| {
        // Balances and lots of one picture.
        sqlx::query!("set transaction isolation level repeatable read, read only").execute(&mut **transaction).await?;
        let balances = ledger::balances(&mut **transaction, organization).await?.ok_or(Error::Internal("a wallet has no accounts"))?;
        let lots = grants::lots(&mut **transaction, organization, now).await?;
        let overdraft = grants::overdraft(&mut **transaction, organization).await?;
        Ok(Balance::with(balances, lots, overdraft, now))
    })
}
