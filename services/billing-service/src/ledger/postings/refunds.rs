//! Usage and money that go back. Credit that was bought is taken back with the money; what of it was burned already is owed [B-48].

use chrono::{DateTime, Utc};

use super::{Kind, Posting, returned, taken};
use crate::ledger::Balances;
use crate::ledger::chart::Account;

/// Usage given back as credit: revenue stays what it was, and this is less of it [B-50].
#[must_use]
pub fn usage_refund(key: impl Into<String>, amount: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (wallet, repaid) = returned(amount, balances);
    Posting::new(Kind::UsageRefund, key, at, vec![(Account::Refunds, -amount), (Account::Wallet, wallet), (Account::Debt, repaid)])
}

/// Money given back: Stripe pays it, the customer's credit goes with it.
#[must_use]
pub fn refund(key: impl Into<String>, amount: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (wallet, owed) = taken(amount, balances);
    Posting::new(Kind::Refund, key, at, vec![(Account::Wallet, wallet), (Account::Debt, owed), (Account::StripeClearing, amount)])
}

/// A bank disputes a charge: its credit is taken back and stands between customer and house until the dispute is closed.
#[must_use]
pub fn dispute_opened(key: impl Into<String>, amount: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (wallet, owed) = taken(amount, balances);
    Posting::new(Kind::DisputeOpened, key, at, vec![(Account::Wallet, wallet), (Account::Debt, owed), (Account::Disputes, amount)])
}

/// The charge stands: the credit returns.
#[must_use]
pub fn dispute_won(key: impl Into<String>, amount: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (wallet, repaid) = returned(amount, balances);
    Posting::new(Kind::DisputeWon, key, at, vec![(Account::Disputes, -amount), (Account::Wallet, wallet), (Account::Debt, repaid)])
}

/// The charge is reversed: the money has left Stripe, and its fee with it, which stays on the account as what disputes cost.
#[must_use]
pub fn dispute_lost(key: impl Into<String>, amount: i64, fee: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::DisputeLost, key, at, vec![(Account::Disputes, -amount - fee), (Account::StripeClearing, amount + fee)])
}
