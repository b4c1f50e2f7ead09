//! One pure function for each business event: what it moves. Nothing else makes entries.

use chrono::{DateTime, Utc};
use contracts::RequestId;
use identity::OrganizationId;

use super::chart::Account;

/// What a ledger transaction is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Credit for signing up.
    SignupGrant,
    /// A hold for a request.
    Reservation,
    /// What a request used, and the rest of its hold back.
    Settlement,
    /// A hold given back whole.
    Void,
    /// What a request used that had been given up for dead.
    LateSettlement,
}

impl Kind {
    /// Its name in the database and in statements.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignupGrant => "signup_grant",
            Self::Reservation => "reservation",
            Self::Settlement => "settlement",
            Self::Void => "void",
            Self::LateSettlement => "late_settlement",
        }
    }
}

/// A transaction to be written. Entries of zero are left out when it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// What it is about.
    pub kind: Kind,
    /// The fact, unique for its kind.
    pub external_key: String,
    /// When it became true.
    pub occurred_at: DateTime<Utc>,
    /// What moves: at least two entries that sum to zero.
    pub entries: Vec<(Account, i64)>,
}

/// Credit for signing up: the house gives, the wallet gets.
#[must_use]
pub fn signup_grant(organization: OrganizationId, amount: i64, at: DateTime<Utc>) -> Posting {
    let entries = vec![(Account::Promotion, -amount), (Account::Wallet, amount)];
    Posting { kind: Kind::SignupGrant, external_key: organization.to_string(), occurred_at: at, entries }
}

/// A hold: from the wallet to the holds.
#[must_use]
pub fn reservation(request: RequestId, amount: i64, at: DateTime<Utc>) -> Posting {
    let entries = vec![(Account::Wallet, -amount), (Account::Holds, amount)];
    Posting { kind: Kind::Reservation, external_key: request.to_string(), occurred_at: at, entries }
}

/// A hold given back.
#[must_use]
pub fn void(request: RequestId, held: i64, at: DateTime<Utc>) -> Posting {
    let entries = vec![(Account::Holds, -held), (Account::Wallet, held)];
    Posting { kind: Kind::Void, external_key: request.to_string(), occurred_at: at, entries }
}

/// What a request used: from its hold to revenue, the rest back to the wallet; what goes beyond the hold comes from the wallet
/// as far as it reaches and is owed beyond that, never lost [B-40]. The provider's part is booked beside it.
#[must_use]
pub fn settlement(request: RequestId, held: i64, wallet: i64, price: i64, cost: i64, at: DateTime<Utc>) -> Posting {
    let over = (price - held).max(0);
    let from_wallet = over.min(wallet.max(0));
    let entries = vec![
        (Account::Holds, -held),
        (Account::Wallet, (held - price).max(0) - from_wallet),
        (Account::Debt, from_wallet - over),
        (Account::Revenue, price),
        (Account::ProviderCost, -cost),
        (Account::ProviderPayable, cost),
    ];
    Posting { kind: Kind::Settlement, external_key: request.to_string(), occurred_at: at, entries }
}

/// What a request used whose hold had already ended: it is always recorded [B-43].
#[must_use]
pub fn late_settlement(request: RequestId, wallet: i64, price: i64, cost: i64, at: DateTime<Utc>) -> Posting {
    Posting { kind: Kind::LateSettlement, ..settlement(request, 0, wallet, price, cost, at) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn moved(posting: &Posting, account: Account) -> i64 {
        posting.entries.iter().filter(|(entry, _)| *entry == account).map(|(_, amount)| amount).sum()
    }

    proptest! {
        /// [B-34] [B-40]
        #[test]
        fn every_posting_sums_to_zero_and_a_settlement_never_overdraws_the_wallet(
            held in 0..1_000_000_000_i64, wallet in 0..1_000_000_000_i64, price in 0..2_000_000_000_i64, cost in 0..2_000_000_000_i64
        ) {
            let request = RequestId::from_uuid(Uuid::nil());
            let organization = OrganizationId::from_uuid(Uuid::nil());
            let at = DateTime::UNIX_EPOCH;
            let settled = settlement(request, held, wallet, price, cost, at);
            for posting in [signup_grant(organization, held, at), reservation(request, held, at), void(request, held, at),
                late_settlement(request, wallet, price, cost, at), settled.clone()] {
                prop_assert_eq!(posting.entries.iter().map(|(_, amount)| amount).sum::<i64>(), 0);
                prop_assert!(posting.entries.len() >= 2);
            }
            prop_assert_eq!(moved(&settled, Account::Revenue), price, "what was used is posted whole");
            prop_assert_eq!(moved(&settled, Account::Holds), -held, "the hold is resolved whole");
            prop_assert!(wallet + moved(&settled, Account::Wallet) >= 0);
            prop_assert!(moved(&settled, Account::Debt) <= 0);
            if moved(&settled, Account::Debt) < 0 {
                prop_assert_eq!(wallet + moved(&settled, Account::Wallet), 0, "debt only when the wallet is empty");
            }
        }
    }
}
