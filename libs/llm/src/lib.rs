//! The wire formats of model providers: pure translation, no I/O. What is not understood is kept, in both directions.

mod cost;
pub mod error;
mod json;
pub mod prompt;
pub mod request;
pub mod sse;
pub mod tally;
pub mod usage;

pub use cost::without_cost;
pub use error::{ErrorBody, ErrorDetail, ProviderError};
pub use prompt::{Count, Tokenizer};
pub use request::{Allowances, ChatRequest, InvalidRequest, LimitField};
pub use tally::{Tally, Verdict};
