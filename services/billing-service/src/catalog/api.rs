//! `GET /v1/plans`: what the caller may subscribe to and buy.

use axum::extract::State;
use chassis::problem::ProblemBody;
use identity::{Authenticated, Scope};
use money::Currency;
use serde::Serialize;
use utoipa::ToSchema;

use super::domain::{Amounts, Catalog, CreditPack, Expiry, Interval, Models, Plan, Prices};
use super::stored;
use crate::error::Error;
use crate::ledger::CREDIT;
use crate::state::AppState;
use crate::subscriptions::store;

/// What is sold now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plans {
    /// Plans, by code.
    plans: Vec<PlanView>,
    /// Credit packs, by code.
    credit_packs: Vec<CreditPackView>,
}

/// A plan.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlanView {
    /// Its code.
    code: String,
    /// What people call it.
    name: String,
    /// Of one group a customer has at most one.
    group: String,
    /// Days before the first payment.
    trial_days: u32,
    /// What it costs, in the caller's currency once there is one.
    prices: Vec<PriceView>,
    /// Credit for each month of a period; a year brings that of its twelve months at its beginning.
    included_credit: Vec<AmountView>,
    /// When that ends; absent where there is none.
    included_credit_expiry: Option<ExpiryView>,
    /// Seats in the price.
    included_seats: u32,
    /// Seats at most; absent for no limit.
    max_seats: Option<u32>,
    /// What it unlocks.
    features: Vec<String>,
    /// Models that may be called; absent for all.
    models: Option<Vec<String>>,
    /// Requests in a minute; absent for no limit.
    requests_per_minute: Option<u32>,
    /// Tokens in a minute; absent for no limit.
    tokens_per_minute: Option<u32>,
}

/// A price.
#[derive(Debug, Serialize, ToSchema)]
pub struct PriceView {
    /// ISO 4217 code.
    #[schema(example = "USD")]
    currency: &'static str,
    /// How often it is paid.
    interval: Interval,
    /// In micro-units.
    amount_micros: i64,
    /// Of each seat beyond those included, in micro-units; absent when there are none.
    seat_micros: Option<i64>,
}

/// An amount.
#[derive(Debug, Serialize, ToSchema)]
pub struct AmountView {
    /// ISO 4217 code.
    #[schema(example = "USD")]
    currency: &'static str,
    /// In micro-units.
    amount_micros: i64,
}

/// When credit ends.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "expires", rename_all = "snake_case")]
pub enum ExpiryView {
    /// With the period it was given for.
    PeriodEnd,
    /// Some days after it was given.
    Days {
        /// How many.
        days: u32,
    },
    /// Not at all.
    Never,
}

impl From<Expiry> for ExpiryView {
    fn from(expiry: Expiry) -> Self {
        match expiry {
            Expiry::PeriodEnd => Self::PeriodEnd,
            Expiry::Days(days) => Self::Days { days },
            Expiry::Never => Self::Never,
        }
    }
}

/// Credit for sale.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreditPackView {
    /// Its code.
    code: String,
    /// What people call it.
    name: String,
    /// What it costs.
    prices: Vec<AmountView>,
    /// What it gives, in the currency of credit.
    credit: Vec<AmountView>,
    /// When that ends.
    credit_expiry: ExpiryView,
}

/// What is sold now, in the currency the organization pays in once there was a purchase, until then in all.
#[utoipa::path(get, path = "/v1/plans", tag = "subscriptions", security(("bearer" = [])),
    responses((status = 200, body = Plans), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(State(state): State<AppState>, Authenticated(principal): Authenticated) -> Result<axum::Json<Plans>, Error> {
    principal.require(Scope::BillingRead)?;
    let mut connection = state.pool.acquire().await?;
    let catalog = stored::current(&mut connection).await?;
    let currency = store::currency(&mut connection, principal.organization_id).await?;
    Ok(axum::Json(view(&catalog, currency)))
}

fn view(catalog: &Catalog, only: Option<Currency>) -> Plans {
    let plans = catalog.plans.iter().map(|(code, item)| plan(code.as_str(), item, only));
    let packs = catalog.credit_packs.iter().map(|(code, item)| pack(code.as_str(), item, only));
    Plans {
        plans: plans.filter(|plan| !plan.prices.is_empty()).collect(),
        credit_packs: packs.filter(|pack| !pack.prices.is_empty()).collect(),
    }
}

fn plan(code: &str, plan: &Plan, only: Option<Currency>) -> PlanView {
    PlanView {
        code: code.to_owned(),
        name: plan.name.clone(),
        group: plan.group.to_string(),
        trial_days: plan.trial_days,
        prices: prices(&plan.prices, &plan.seats.prices, only),
        included_credit: plan.included_credit.as_ref().map(|credit| amounts(&credit.amounts, Some(CREDIT))).unwrap_or_default(),
        included_credit_expiry: plan.included_credit.as_ref().map(|credit| credit.expires.into()),
        included_seats: plan.seats.included,
        max_seats: plan.seats.max,
        features: plan.features.iter().map(ToString::to_string).collect(),
        models: match &plan.limits.models {
            Models::All => None,
            Models::Only(models) => Some(models.iter().cloned().collect()),
        },
        requests_per_minute: plan.limits.requests_per_minute,
        tokens_per_minute: plan.limits.tokens_per_minute,
    }
}

fn pack(code: &str, pack: &CreditPack, only: Option<Currency>) -> CreditPackView {
    CreditPackView {
        code: code.to_owned(),
        name: pack.name.clone(),
        prices: amounts(&pack.prices, only),
        credit: amounts(&pack.credit, Some(CREDIT)),
        credit_expiry: pack.expires.into(),
    }
}

fn prices(prices: &Prices, seats: &Prices, only: Option<Currency>) -> Vec<PriceView> {
    let shown = prices.0.iter().filter(|((currency, _), _)| only.is_none_or(|only| only == *currency));
    let shown = shown.map(|((currency, interval), micros)| PriceView {
        currency: currency.code(),
        interval: *interval,
        amount_micros: *micros,
        seat_micros: seats.get(*currency, *interval),
    });
    shown.collect()
}

fn amounts(amounts: &Amounts, only: Option<Currency>) -> Vec<AmountView> {
    let shown = amounts.iter().filter(|(currency, _)| only.is_none_or(|only| only == **currency));
    shown.map(|(currency, micros)| AmountView { currency: currency.code(), amount_micros: *micros }).collect()
}
