//! What an account sets on Stripe's dashboard.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

const MILLION: i64 = 1_000_000;

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
    /// Requests of the API that are admitted in a second of the global clock; any number when empty.
    pub requests_per_second: Option<u32>,
    /// In what the balance of the account is settled; each payment in its own currency when empty.
    pub settlement: Option<Settlement>,
}

/// A currency of a bank account, into which Stripe exchanges what was paid in others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settlement {
    /// Its code, as `usd`.
    pub currency: String,
    /// How many of its smallest units are given for a million of another currency's.
    pub per_million: i64,
}

impl Settings {
    /// An amount of a currency as the account's balance has it: currency, amount, and at which rate it was exchanged, if it was.
    pub(crate) fn settled(&self, currency: &str, amount: i64) -> (String, i64, Option<serde_json::Number>) {
        match &self.settlement {
            Some(settlement) if settlement.currency != currency => {
                let Settlement { currency, per_million } = settlement;
                let rate = format!("{}.{:06}", per_million / MILLION, per_million % MILLION);
                (currency.clone(), amount.saturating_mul(*per_million) / MILLION, rate.parse().ok())
            }
            _ => (currency.to_owned(), amount, None),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retry_days: vec![3, 5, 7, 7],
            after_retries: AfterRetries::default(),
            automatic_tax_percent: 0,
            requests_per_second: None,
            settlement: None,
        }
    }
}
