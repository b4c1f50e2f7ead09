//! Currencies, amounts, token usage and rate cards. Integers only: no floating point touches money [B-26].

pub mod currency;
pub mod rate_card;
pub mod usage;

pub use currency::{Currency, UnknownCurrency, minor_units};
pub use rate_card::{PriceError, RateCard, Rates};
pub use usage::TokenUsage;
