//! billing-service alone: how fast it posts, acknowledges and exports, and whether more wallets or more rows make it slower.

mod exports;
mod rows;
mod scaling;
mod webhooks;

use serde::Serialize;

pub use exports::export;
pub use rows::{Posting, settled_rows};
pub use scaling::{Point, Size, fill, point};
pub use webhooks::{SECRET, acknowledgements};

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

impl Figure {
    /// A figure.
    #[must_use]
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit }
    }
}

/// For counts, bytes and microseconds of a measurement.
#[expect(clippy::cast_precision_loss, reason = "far below what a floating point number holds exactly")]
const fn number(whole: u64) -> f64 {
    whole as f64
}
