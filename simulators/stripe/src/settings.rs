//! What an account sets on Stripe's dashboard.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What becomes of a subscription whose invoice could not be paid after all retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[clap(rename_all = "snake_case")]
pub enum AfterRetries {
    /// It is canceled.
    #[default]
    Cancel,
    /// It becomes `unpaid`: invoices are made and left as drafts.
    Unpaid,
    /// It stays `past_due`.
    PastDue,
}

/// The account's billing settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Days after the first failed try at which an invoice's payment is retried.
    pub retry_days: Vec<i64>,
    /// What happens then.
    pub after_retries: AfterRetries,
    /// The percentage of tax where it is computed automatically: within a price, unless that says it is on top.
    pub automatic_tax_percent: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { retry_days: vec![3, 5, 7, 7], after_retries: AfterRetries::default(), automatic_tax_percent: 0 }
    }
}
