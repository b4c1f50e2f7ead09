//! Credit that comes, expires, or moves.

use chrono::{DateTime, Utc};
use identity::OrganizationId;

use super::exchange::Own;
use super::{Kind, Posting, Sale, returned};
use crate::ledger::Balances;
use crate::ledger::chart::Account;

/// Credit for signing up: the house gives, the wallet gets.
#[must_use]
pub fn signup_grant(organization: OrganizationId, amount: i64, at: DateTime<Utc>) -> Posting {
    let entries = vec![(Account::Promotion, -amount), (Account::Wallet, amount)];
    Posting::new(Kind::SignupGrant, organization.to_string(), at, entries)
}

/// Credit that the house gives, at the expense of `from`. It repays debt first, unless it is `restricted`: such credit pays for its
/// models and for nothing else.
#[must_use]
pub fn grant(key: impl Into<String>, from: Account, amount: i64, restricted: bool, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (wallet, repaid) = if restricted { (amount, 0) } else { returned(amount, balances) };
    Posting::new(Kind::Grant, key, at, vec![(from, -amount), (Account::Wallet, wallet), (Account::Debt, repaid)])
}

/// Credit that was paid for: money at Stripe, a liability to the customer. Only from a paid fact, whose key this is [B-47].
#[must_use]
pub fn sale(key: impl Into<String>, sale: Sale, restricted: bool, balances: Balances, at: DateTime<Utc>) -> Posting {
    let own = if restricted { Own { wallet: sale.credit, debt: 0, breakage: 0 } } else { Own::returned(sale.credit, 0, balances) };
    sale.posting(Kind::Sale, key, Account::StripeClearing, own, at, false)
}

/// Credit that expired: what the house owed, it earned without a service [B-46].
#[must_use]
pub fn expiry(key: impl Into<String>, amount: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::Expiry, key, at, vec![(Account::Wallet, -amount), (Account::Breakage, amount)])
}

/// Credit that the house took back before it was used; `to` is the account that had paid for it.
#[must_use]
pub fn revocation(key: impl Into<String>, to: Account, amount: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::Revocation, key, at, vec![(Account::Wallet, -amount), (to, amount)])
}

/// A correction by hand that takes: from the wallet as far as it reaches, and owed beyond that. One that gives is a [`grant`].
#[must_use]
pub fn adjustment(key: impl Into<String>, amount: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (wallet, owed) = super::taken(amount, balances);
    Posting::new(Kind::Adjustment, key, at, vec![(Account::Wallet, wallet), (Account::Debt, owed), (Account::Adjustments, amount)])
}

/// Credit that leaves for another wallet.
#[must_use]
pub fn transfer_out(key: impl Into<String>, amount: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::TransferOut, key, at, vec![(Account::Wallet, -amount), (Account::Transfers, amount)])
}

/// The same credit at its other end.
#[must_use]
pub fn transfer_in(key: impl Into<String>, amount: i64, restricted: bool, balances: Balances, at: DateTime<Utc>) -> Posting {
    Posting { kind: Kind::TransferIn, ..grant(key, Account::Transfers, amount, restricted, balances, at) }
}

/// What a payment came to in minor units more than the amount it was for; below zero when it was less.
#[must_use]
pub fn rounding(key: impl Into<String>, more: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::Rounding, key, at, vec![(Account::StripeClearing, -more), (Account::Rounding, more)])
}

/// What a credit note of Stripe's put on the customer's balance there: owed from then on, and less revenue.
#[must_use]
pub fn credit_note(key: impl Into<String>, amount: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::CreditNote, key, at, vec![(Account::Refunds, -amount), (Account::CustomerBalances, amount)])
}

/// What somebody changed of a customer's balance at Stripe, once it is decided that it stands: more owed to the customer above zero.
#[must_use]
pub fn balance_correction(key: impl Into<String>, more: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::BalanceCorrection, key, at, vec![(Account::Adjustments, -more), (Account::CustomerBalances, more)])
}
