//! The chart of accounts. Amounts are signed: positive is what the account's owner has or is owed, and every transaction sums
//! to zero.

/// An account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Account {
    /// What an organization may spend; never below zero.
    Wallet,
    /// What of it is held for requests under way; never below zero.
    Holds,
    /// What an organization used beyond its wallet; never above zero.
    Debt,
    /// What the house earned.
    Revenue,
    /// What providers cost the house.
    ProviderCost,
    /// What the house owes providers.
    ProviderPayable,
    /// Credit the house gave away.
    Promotion,
}

impl Account {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Wallet, Self::Holds, Self::Debt, Self::Revenue, Self::ProviderCost, Self::ProviderPayable, Self::Promotion];

    /// Its name in the database and in statements.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Holds => "holds",
            Self::Debt => "debt",
            Self::Revenue => "revenue",
            Self::ProviderCost => "provider_cost",
            Self::ProviderPayable => "provider_payable",
            Self::Promotion => "promotion",
        }
    }

    /// Whether each organization has its own; the others are the house's.
    #[must_use]
    pub const fn belongs_to_organization(self) -> bool {
        matches!(self, Self::Wallet | Self::Holds | Self::Debt)
    }
}
