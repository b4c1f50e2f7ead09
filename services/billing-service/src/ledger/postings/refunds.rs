//! Usage and money that go back. Credit that was bought is taken back with the money; what of it was burned already is owed [B-48].

use chrono::{DateTime, Utc};

use super::{Kind, Posting, Sale, returned, taken};
use crate::ledger::Balances;
use crate::ledger::chart::Account;

/// Usage given back as credit: revenue stays what it was, and this is less of it [B-50].
#[must_use]
pub fn usage_refund(key: impl Into<String>, amount: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (wallet, repaid) = returned(amount, balances);
    Posting::new(Kind::UsageRefund, key, at, vec![(Account::Refunds, -amount), (Account::Wallet, wallet), (Account::Debt, repaid)])
}

/// Money given back: Stripe pays it, and the part of the sale that is credited goes with it, wherever the sale had put it.
#[must_use]
pub fn refund(key: impl Into<String>, part: Sale, balances: Balances, at: DateTime<Utc>) -> Posting {
    part.posting(Kind::Refund, key, Account::StripeClearing, taken(part.credit, balances), at, true)
}

/// A bank disputes a charge: its credit is taken back and stands between customer and house until the dispute is closed.
#[must_use]
pub fn dispute_opened(key: impl Into<String>, part: Sale, balances: Balances, at: DateTime<Utc>) -> Posting {
    part.posting(Kind::DisputeOpened, key, Account::Disputes, taken(part.credit, balances), at, true)
}

/// The charge stands: all returns to where the dispute had taken it from.
#[must_use]
pub fn dispute_won(key: impl Into<String>, part: Sale, balances: Balances, at: DateTime<Utc>) -> Posting {
    part.posting(Kind::DisputeWon, key, Account::Disputes, returned(part.credit, balances), at, false)
}

/// The charge is reversed: the money has left Stripe, and its fee with it, which stays on the account as what disputes cost.
#[must_use]
pub fn dispute_lost(key: impl Into<String>, paid: i64, fee: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::DisputeLost, key, at, vec![(Account::Disputes, -paid - fee), (Account::StripeClearing, paid + fee)])
}
