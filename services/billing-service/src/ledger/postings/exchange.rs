//! What was paid, the credit that came with it, and how the two meet when they are of two currencies: each side sums to zero by itself, and
//! the account `exchange` stands on both.

use chrono::{DateTime, Utc};
use money::Currency;

use super::{Kind, Posting, returned, taken};
use crate::catalog::amount::minor_micros;
use crate::ledger::Balances;
use crate::ledger::chart::Account;

/// A price of the catalogue in two currencies: so much money stands for so much credit. Both in micro-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The money, above zero.
    pub money: i64,
    /// What the same costs in the currency of credit, above zero.
    pub credit: i64,
}

/// What of a payment in another currency bought credit. Both in micro-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// In what was paid.
    pub currency: Currency,
    /// So much of the money; what is more is the price of the plan around it, and earned in the currency it was paid in.
    pub money: i64,
    /// So much of the credit; what is more is promotional.
    pub credit: i64,
}

/// What was paid, and the credit that was bought with it; both in micro-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sale {
    /// The money, without tax.
    pub paid: i64,
    /// The credit. What is more than was paid is promotional; what is less is the price of the plan around it, and earned.
    pub credit: i64,
    /// How they met, when they are of two currencies.
    pub exchange: Option<Exchange>,
    /// What of the money the customer's balance at Stripe paid; below zero, so much more was paid beside it, for what had waited there. Of
    /// what goes back, below zero, what goes back of that.
    pub balance: i64,
}

impl Sale {
    /// Of money and credit in one currency.
    #[must_use]
    pub const fn of(paid: i64, credit: i64) -> Self {
        Self { paid, credit, exchange: None, balance: 0 }
    }

    /// Of money in another currency. At the rate it buys as much of the credit as it is worth; when it is worth more, the rest of it, in
    /// whole smallest units, buys none.
    #[must_use]
    pub fn exchanged(paid: i64, credit: i64, currency: Currency, rate: Rate) -> Self {
        let unit = minor_micros(currency);
        let worth = product(paid, rate.credit, rate.money);
        let exchange = if worth <= credit {
            Exchange { currency, money: paid, credit: worth }
        } else {
            let needed = product(credit, rate.money, rate.credit);
            let whole = needed.saturating_add(unit - 1) / unit * unit;
            Exchange { currency, money: whole.min(paid), credit }
        };
        Self { paid, credit, exchange: Some(exchange), balance: 0 }
    }

    /// What was paid by a card, or another means that a payment is: what can go back that way. Below zero where a balance paid tax.
    #[must_use]
    pub const fn money(self) -> i64 {
        self.paid.saturating_sub(self.balance)
    }

    /// What of the credit nobody paid for.
    #[must_use]
    pub fn bonus(self) -> i64 {
        self.credit - self.exchange.map_or(self.paid.min(self.credit), |exchange| exchange.credit)
    }

    /// What of the money is no credit, in its currency.
    #[must_use]
    pub fn fee(self) -> i64 {
        self.paid - self.exchange.map_or(self.paid.min(self.credit), |exchange| exchange.money)
    }

    /// What goes with the money after `before` of it went, until `until` of it has: with all that was sold for all of everything, in however
    /// many parts and whatever was rounded on the way there. What a balance paid stays sold; what was paid beside the sale goes back last.
    #[must_use]
    pub fn part(self, before: i64, until: i64) -> Self {
        let share = |amount: i64| {
            let of = |paid: i64| if self.paid == 0 { 0 } else { product(amount, paid.clamp(0, self.paid), self.paid) };
            of(until) - of(before)
        };
        let exchange = self.exchange.map(|exchange| Exchange { money: share(exchange.money), credit: share(exchange.credit), ..exchange });
        let paid = until.clamp(0, self.paid) - before.clamp(0, self.paid);
        Self { paid, credit: share(self.credit), exchange, balance: paid - (until - before) }
    }

    /// Without so much of its credit, and of the money that bought it: it was taken back before.
    #[must_use]
    pub fn without(self, credit: i64) -> Self {
        let Some(exchange) = self.exchange else {
            return Self { balance: self.balance, ..Self::of((self.paid - credit).max(0), self.credit - credit) };
        };
        let left = (exchange.credit - credit).max(0);
        let money = if exchange.credit == 0 { 0 } else { product(exchange.money, left, exchange.credit) };
        let exchange = Exchange { money, credit: left, ..exchange };
        Self { paid: self.fee() + money, credit: self.credit - credit, exchange: Some(exchange), ..self }
    }

    /// The posting of a sale with its money at `at_house` and where its credit goes in `own`; one that is undone has all of it the other way.
    pub(super) fn posting(
        self,
        kind: Kind,
        key: impl Into<String>,
        at_house: Account,
        own: Own,
        at: DateTime<Utc>,
        undone: bool,
    ) -> Posting {
        let sign = if undone { -1 } else { 1 };
        let mut entries = vec![
            (Account::Promotion, -self.bonus() * sign),
            (Account::Wallet, own.wallet),
            (Account::Debt, own.debt),
            (Account::Breakage, own.breakage),
        ];
        // What goes back beside a sale was for a small invoice before it, whose goods stay: less revenue. Stripe's balance does not move then.
        let beside = if kind == Kind::Sale { Account::CustomerBalances } else { Account::Refunds };
        let mut money = vec![(at_house, -self.money() * sign), (beside, -self.balance * sign), (Account::PlanFees, self.fee() * sign)];
        let Some(exchange) = self.exchange else {
            entries.append(&mut money);
            return Posting::new(kind, key, at, entries);
        };
        entries.push((Account::Exchange, -exchange.credit * sign));
        money.push((Account::Exchange, exchange.money * sign));
        Posting { money: Some((exchange.currency, money)), ..Posting::new(kind, key, at, entries) }
    }
}

/// Where the credit of a sale comes from or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) wallet: i64,
    pub(super) debt: i64,
    /// What of it had expired: the house's, until the sale is undone.
    pub(super) breakage: i64,
}

impl Own {
    pub(super) fn taken(credit: i64, expired: i64, balances: Balances) -> Self {
        let (wallet, debt) = taken(credit - expired, balances);
        Self { wallet, debt, breakage: -expired }
    }

    pub(super) fn returned(credit: i64, expired: i64, balances: Balances) -> Self {
        let (wallet, debt) = returned(credit - expired, balances);
        Self { wallet, debt, breakage: expired }
    }
}

/// `amount * numerator / denominator`, of amounts that are not below zero, rounded down, and the largest there is where it does not fit.
fn product(amount: i64, numerator: i64, denominator: i64) -> i64 {
    let product = i128::from(amount) * i128::from(numerator) / i128::from(denominator.max(1));
    i64::try_from(product).unwrap_or(i64::MAX)
}
