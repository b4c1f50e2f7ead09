//! Credit that comes, expires, or moves.

use chrono::{DateTime, Utc};
use identity::OrganizationId;

use super::{Kind, Posting, returned};
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

/// What was paid, and the credit that was bought with it; both in micro-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sale {
    /// The money, without tax.
    pub paid: i64,
    /// The credit. What is more than was paid is promotional; what is less is the price of the plan around it, and earned.
    pub credit: i64,
}

impl Sale {
    /// What of the credit nobody paid for.
    #[must_use]
    pub fn bonus(self) -> i64 {
        (self.credit - self.paid).max(0)
    }

    /// What of the money is no credit.
    #[must_use]
    pub fn fee(self) -> i64 {
        (self.paid - self.credit).max(0)
    }

    /// What of the credit goes with so much of the money: of all the money all the credit, whatever was rounded on the way there.
    #[must_use]
    pub fn credit_of(self, paid: i64) -> i64 {
        let share = i128::from(self.credit) * i128::from(paid.clamp(0, self.paid)) / i128::from(self.paid.max(1));
        // No more than the credit, which fits.
        i64::try_from(share).unwrap_or(self.credit)
    }
}

/// Credit that was paid for: money at Stripe, a liability to the customer. Only from a paid fact, whose key this is [B-47].
#[must_use]
pub fn sale(key: impl Into<String>, sale: Sale, restricted: bool, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (wallet, repaid) = if restricted { (sale.credit, 0) } else { returned(sale.credit, balances) };
    let entries = vec![
        (Account::StripeClearing, -sale.paid),
        (Account::Promotion, -sale.bonus()),
        (Account::PlanFees, sale.fee()),
        (Account::Wallet, wallet),
        (Account::Debt, repaid),
    ];
    Posting::new(Kind::Sale, key, at, entries)
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
