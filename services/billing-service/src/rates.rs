//! Rate cards: which rates apply to a model and an organization at an instant, what usage comes to, and price lists.

pub mod allowance;
mod import;
mod list;
mod own_list;
mod price_list;
mod show;
mod store;

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use money::{RateCard, TokenUsage};
use sqlx::{PgExecutor, Postgres, Transaction};

use crate::error::Error;

pub use import::{ImportError, List, import};
pub use list::list;
#[cfg(test)]
pub(crate) use own_list::parse as own_list;
pub use price_list::Mistake;
#[cfg(test)]
pub(crate) use price_list::parse as price_list;
pub use show::{export, show};
pub use store::NewCard;

/// A rate card and its row.
#[derive(Debug, Clone)]
pub struct StoredCard {
    /// The row's id, kept with what it priced [B-31].
    pub id: i64,
    /// The model that it prices.
    pub model: String,
    /// The organization it was made for; none for everybody.
    pub organization_id: Option<OrganizationId>,
    /// From this instant on.
    pub valid_from: DateTime<Utc>,
    /// Up to this instant and not at it; none while no end is known.
    pub valid_to: Option<DateTime<Utc>>,
    /// The rates.
    pub card: RateCard,
    /// What an organization does not pay in a calendar month (UTC), in micro-units of price.
    pub free_micros: i64,
}

/// What usage comes to, in micro-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// For the customer, the free allowance taken off.
    pub price: i64,
    /// What of the customer's price the allowance took off.
    pub free: i64,
    /// For us.
    pub cost: i64,
}

/// The card of a model for everybody at an instant; validity is half-open [B-31].
///
/// # Errors
/// [`Error::ModelNotPriced`], or the database's.
pub async fn at(transaction: &mut Transaction<'static, Postgres>, model: &str, instant: DateTime<Utc>) -> Result<StoredCard, Error> {
    store::find(transaction, None, model, instant).await?.ok_or(Error::ModelNotPriced)
}

/// The card of a model for an organization at an instant: its own, where it has one, else everybody's.
///
/// # Errors
/// [`Error::ModelNotPriced`], or the database's.
pub async fn for_organization(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    model: &str,
    instant: DateTime<Utc>,
) -> Result<StoredCard, Error> {
    store::find(transaction, Some(organization), model, instant).await?.ok_or(Error::ModelNotPriced)
}

/// A card by its id: the one by which a request was admitted.
///
/// # Errors
/// [`Error::ModelNotPriced`], or the database's.
pub async fn by_id(executor: impl PgExecutor<'_>, id: i64) -> Result<StoredCard, Error> {
    store::by_id(executor, id).await?.ok_or(Error::ModelNotPriced)
}

/// Prices usage by a card and takes what is left of the free allowance of the month of `at`. To be called once for each request,
/// under the lock of the organization's accounts, in the transaction that posts the charge.
///
/// # Errors
/// [`Error::Price`], or the database's.
pub async fn charge(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    card: &StoredCard,
    usage: &TokenUsage,
    at: DateTime<Utc>,
) -> Result<Charge, Error> {
    let (full, cost) = (card.card.price.amount(usage)?, card.card.cost.amount(usage)?);
    let free = allowance::take(transaction, organization, card, full, at).await?;
    Ok(Charge { price: full - free, free, cost })
}
