//! The chart of accounts. Amounts are signed as an accountant's credit: positive is what the house owes or earned, negative is what it
//! is owed, has or spent; every transaction sums to zero. What each business event moves is in `docs/architecture/LEDGER.md`.

/// An account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// What an organization may spend: credit that the house owes it. Below zero only by its overdraft limit, while holds stand on it.
    Wallet,
    /// What of it is held for requests under way; never below zero.
    Holds,
    /// What an organization used, or was given back in money, beyond its wallet; never above zero.
    Debt,
    /// What the house earned by usage, at the price of the rate card, whatever kind of credit paid for it.
    Revenue,
    /// What of a plan's price is no credit: earned when it is paid.
    PlanFees,
    /// Credit that expired before it was used: earned without a service.
    Breakage,
    /// Usage that was given back as credit, and what was credited to a customer's balance at Stripe: less revenue.
    Refunds,
    /// What providers cost the house.
    ProviderCost,
    /// What the house owes providers.
    ProviderPayable,
    /// Credit the house gave away: an expense when it is given, and none again when it is burned.
    Promotion,
    /// Money at Stripe that is on its way to or from the bank.
    StripeClearing,
    /// Money of a currency on one side, and the credit it bought on the other: a trading account, one for each currency. What it has in two
    /// currencies is what was exchanged between them, at the catalogue's prices.
    Exchange,
    /// What Stripe keeps as customers' balances: above zero credit of theirs, that pays their next invoices; below zero small invoices that
    /// wait for the next ones. The opposite of Stripe's own sign.
    CustomerBalances,
    /// Money that a customer's bank disputes: taken from the customer, and not yet known whose; at rest, minus what lost disputes cost.
    Disputes,
    /// What operators corrected by hand.
    Adjustments,
    /// Credit between two wallets; zero whenever nobody is moving any.
    Transfers,
    /// What is left when micro-units become a payment provider's minor units.
    Rounding,
}

impl Account {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Wallet,
        Self::Holds,
        Self::Debt,
        Self::Revenue,
        Self::PlanFees,
        Self::Breakage,
        Self::Refunds,
        Self::ProviderCost,
        Self::ProviderPayable,
        Self::Promotion,
        Self::StripeClearing,
        Self::Exchange,
        Self::CustomerBalances,
        Self::Disputes,
        Self::Adjustments,
        Self::Transfers,
        Self::Rounding,
    ];

    /// Its name in the database and in statements.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Holds => "holds",
            Self::Debt => "debt",
            Self::Revenue => "revenue",
            Self::PlanFees => "plan_fees",
            Self::Breakage => "breakage",
            Self::Refunds => "refunds",
            Self::ProviderCost => "provider_cost",
            Self::ProviderPayable => "provider_payable",
            Self::Promotion => "promotion",
            Self::StripeClearing => "stripe_clearing",
            Self::Exchange => "exchange",
            Self::CustomerBalances => "customer_balances",
            Self::Disputes => "disputes",
            Self::Adjustments => "adjustments",
            Self::Transfers => "transfers",
            Self::Rounding => "rounding",
        }
    }

    /// Its code in journals: 1xxx is owned, 2xxx owed, 4xxx earned, 5xxx and 6xxx spent.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::StripeClearing => 1100,
            Self::Exchange => 1190,
            Self::Debt => 1200,
            Self::Wallet => 2000,
            Self::Holds => 2010,
            Self::CustomerBalances => 2050,
            Self::Disputes => 2100,
            Self::ProviderPayable => 2200,
            Self::Transfers => 2900,
            Self::Revenue => 4000,
            Self::PlanFees => 4010,
            Self::Breakage => 4100,
            Self::Refunds => 4200,
            Self::ProviderCost => 5000,
            Self::Promotion => 6000,
            Self::Adjustments => 6900,
            Self::Rounding => 6950,
        }
    }

    /// The account of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|account| account.as_str() == name)
    }

    /// Whether each organization has its own; the others are the house's.
    #[must_use]
    pub const fn belongs_to_organization(self) -> bool {
        matches!(self, Self::Wallet | Self::Holds | Self::Debt)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_account_has_a_name_and_a_code_of_its_own() {
        let names: HashSet<_> = Account::ALL.iter().map(|account| account.as_str()).collect();
        let codes: HashSet<_> = Account::ALL.iter().map(|account| account.code()).collect();
        assert_eq!((names.len(), codes.len()), (Account::ALL.len(), Account::ALL.len()));
        assert!(Account::ALL.iter().all(|account| Account::named(account.as_str()) == Some(*account)));
        assert_eq!(Account::named("cash"), None);
    }
}
