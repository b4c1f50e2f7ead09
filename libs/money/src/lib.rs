//! Currencies, amounts, token usage and rate cards; integers only.

pub mod usage;

pub use usage::TokenUsage;
