//! Usage and money that go back. Credit that was bought is taken back with the money; what of it was burned already is owed [B-48].

use chrono::{DateTime, Utc};
use money::Currency;

use super::exchange::Own;
use super::{Kind, Posting, Sale, returned};
use crate::ledger::Balances;
use crate::ledger::chart::Account;

/// What a payment provider takes for something: in the currency in which it settles with the house, whatever the payment was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fee {
    /// In what.
    pub currency: Currency,
    /// In micro-units.
    pub amount: i64,
}

/// Usage given back as credit: revenue stays what it was, and this is less of it [B-50].
#[must_use]
pub fn usage_refund(key: impl Into<String>, amount: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (wallet, repaid) = returned(amount, balances);
    Posting::new(Kind::UsageRefund, key, at, vec![(Account::Refunds, -amount), (Account::Wallet, wallet), (Account::Debt, repaid)])
}

/// Money given back: Stripe pays it, and the part of the sale that is credited goes with it, wherever the sale had put it. So much of that
/// credit had `expired`: the house gives it up, and nobody owes it.
#[must_use]
pub fn refund(key: impl Into<String>, part: Sale, expired: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let own = Own::taken(part.credit, expired, balances);
    part.posting(Kind::Refund, key, Account::StripeClearing, own, at, true)
}

/// A bank disputes a charge: its credit is taken back and stands between customer and house until the dispute is closed; what of it had
/// `expired` the house gives up meanwhile.
#[must_use]
pub fn dispute_opened(key: impl Into<String>, part: Sale, expired: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let own = Own::taken(part.credit, expired, balances);
    part.posting(Kind::DisputeOpened, key, Account::Disputes, own, at, true)
}

/// The charge stands: all returns to where the dispute had taken it from.
#[must_use]
pub fn dispute_won(key: impl Into<String>, part: Sale, expired: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let own = Own::returned(part.credit, expired, balances);
    part.posting(Kind::DisputeWon, key, Account::Disputes, own, at, false)
}

/// The charge is reversed: the money (of a currency) has left Stripe, and its fee with it, which stays on the account as what disputes cost.
/// A fee in another currency is a side of its own.
#[must_use]
pub fn dispute_lost(key: impl Into<String>, (currency, paid): (Currency, i64), fee: Option<Fee>, at: DateTime<Utc>) -> Posting {
    let moved = |amount: i64| vec![(Account::Disputes, -amount), (Account::StripeClearing, amount)];
    match fee {
        Some(fee) if fee.currency != currency => {
            Posting { money: Some((fee.currency, moved(fee.amount))), ..Posting::new(Kind::DisputeLost, key, at, moved(paid)) }
        }
        fee => Posting::new(Kind::DisputeLost, key, at, moved(paid + fee.map_or(0, |fee| fee.amount))),
    }
}
