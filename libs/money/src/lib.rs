//! Currencies, amounts, token usage and rate cards. Integers only: no floating point touches money [B-26].

pub mod currency;
pub mod decimal;
pub mod rate_card;
pub mod rates;
pub mod split;
pub mod usage;

pub use currency::{Currency, UnknownCurrency, from_minor_units, minor_units};
pub use decimal::{Decimal, InvalidDecimal};
pub use rate_card::{Ceiling, RateCard, Schedule, Tier};
pub use rates::{Audio, PriceError, Rates};
pub use usage::TokenUsage;
