//! Rate cards: which rates apply to a model at an instant, and the import of price lists.

mod import;
mod list;

use chrono::{DateTime, Utc};
use money::{Currency, RateCard, Rates};
use sqlx::{PgExecutor, Postgres, Transaction};

use crate::error::Error;

pub use import::{Change, import};
pub use list::list;

/// A rate card and its row.
#[derive(Debug, Clone)]
pub struct StoredCard {
    /// The row's id, kept with what it priced [B-31].
    pub id: i64,
    /// The rates.
    pub card: RateCard,
}

/// A row of `rate_cards`; the checked queries give each a type of its own.
macro_rules! stored {
    ($row:expr) => {{
        let row = $row;
        let currency: Currency = row.currency.parse().map_err(|_| Error::Internal("a rate card has an unknown currency"))?;
        let price = Rates {
            input: row.price_input,
            cached_input: row.price_cached,
            cache_write: row.price_cache_write,
            output: row.price_output,
            reasoning: row.price_reasoning,
            audio_input: row.price_audio_in,
            audio_output: row.price_audio_out,
        };
        let cost = Rates {
            input: row.cost_input,
            cached_input: row.cost_cached,
            cache_write: row.cost_cache_write,
            output: row.cost_output,
            reasoning: row.cost_reasoning,
            audio_input: row.cost_audio_in,
            audio_output: row.cost_audio_out,
        };
        Ok(StoredCard { id: row.id, card: RateCard { currency, price, cost } })
    }};
}

/// The card of a model at an instant; validity is half-open [B-31].
///
/// # Errors
/// [`Error::ModelNotPriced`], or the database's.
pub async fn at(transaction: &mut Transaction<'static, Postgres>, model: &str, instant: DateTime<Utc>) -> Result<StoredCard, Error> {
    let row = sqlx::query!(
        "select id, currency, price_input, price_cached, price_cache_write, price_output, price_reasoning, price_audio_in, price_audio_out,
                cost_input, cost_cached, cost_cache_write, cost_output, cost_reasoning, cost_audio_in, cost_audio_out
         from rate_cards where model = $1 and valid_from <= $2 and (valid_to is null or $2 < valid_to)",
        model,
        instant
    )
    .fetch_optional(&mut **transaction)
    .await?
    .ok_or(Error::ModelNotPriced)?;
    stored!(row)
}

/// A card by its id: the one by which a request was admitted.
///
/// # Errors
/// [`Error::ModelNotPriced`], or the database's.
pub async fn by_id(executor: impl PgExecutor<'_>, id: i64) -> Result<StoredCard, Error> {
    let row = sqlx::query!(
        "select id, currency, price_input, price_cached, price_cache_write, price_output, price_reasoning, price_audio_in, price_audio_out,
                cost_input, cost_cached, cost_cache_write, cost_output, cost_reasoning, cost_audio_in, cost_audio_out
         from rate_cards where id = $1",
        id
    )
    .fetch_optional(executor)
    .await?
    .ok_or(Error::ModelNotPriced)?;
    stored!(row)
}
