//! One pure function for each business event: what it moves. Nothing else makes entries.

use chrono::{DateTime, Utc};
use contracts::{LeaseId, RequestId};
use identity::OrganizationId;

use super::Balances;
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
    /// A hold from which many requests are paid.
    Lease,
    /// What is left of it.
    LeaseReturn,
}

impl Posting {
    /// What it moves on an account.
    #[must_use]
    pub fn moved(&self, account: Account) -> i64 {
        self.entries.iter().filter(|(entry, _)| *entry == account).map(|(_, amount)| amount).sum()
    }
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
            Self::Lease => "lease",
            Self::LeaseReturn => "lease_return",
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

/// A lease is filled, for the so-manieth time: from the wallet to the holds.
#[must_use]
pub fn lease(lease: LeaseId, funding: i32, amount: i64, at: DateTime<Utc>) -> Posting {
    let entries = vec![(Account::Wallet, -amount), (Account::Holds, amount)];
    Posting { kind: Kind::Lease, external_key: format!("{lease}:{funding}"), occurred_at: at, entries }
}

/// What returns to an organization pays its debt first; the rest is for its wallet.
fn returned(amount: i64, debt: i64) -> (i64, i64) {
    let repaid = amount.min(debt.max(0));
    (amount - repaid, repaid)
}

/// A hold given back.
#[must_use]
pub fn void(request: RequestId, held: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (rest, repaid) = returned(held, balances.debt);
    let entries = vec![(Account::Holds, -held), (Account::Wallet, rest), (Account::Debt, repaid)];
    Posting { kind: Kind::Void, external_key: request.to_string(), occurred_at: at, entries }
}

/// What is left of a lease, at one of the steps of its end.
#[must_use]
pub fn lease_return(lease: LeaseId, step: &str, amount: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (rest, repaid) = returned(amount, balances.debt);
    let entries = vec![(Account::Holds, -amount), (Account::Wallet, rest), (Account::Debt, repaid)];
    Posting { kind: Kind::LeaseReturn, external_key: format!("{lease}:{step}"), occurred_at: at, entries }
}

/// Whose balances every settlement of a customer changes, beside the customer's own.
pub const HOUSE_ACCOUNTS_OF_SETTLEMENTS: [Account; 3] = [Account::Revenue, Account::ProviderCost, Account::ProviderPayable];

/// What a request used: from its hold to revenue, the rest back; what goes beyond the hold comes from the wallet as far as it
/// reaches and is owed beyond that, never lost [B-40]. The provider's part is booked beside it.
#[must_use]
pub fn settlement(request: RequestId, held: i64, balances: Balances, price: i64, cost: i64, at: DateTime<Utc>) -> Posting {
    let over = (price - held).max(0);
    let from_wallet = over.min(balances.wallet.max(0));
    let (rest, repaid) = returned((held - price).max(0), balances.debt);
    let entries = vec![
        (Account::Holds, -held),
        (Account::Wallet, rest - from_wallet),
        (Account::Debt, repaid + from_wallet - over),
        (Account::Revenue, price),
        (Account::ProviderCost, -cost),
        (Account::ProviderPayable, cost),
    ];
    Posting { kind: Kind::Settlement, external_key: request.to_string(), occurred_at: at, entries }
}

/// What a request used whose hold had already ended: it is always recorded [B-43].
#[must_use]
pub fn late_settlement(request: RequestId, balances: Balances, price: i64, cost: i64, at: DateTime<Utc>) -> Posting {
    Posting { kind: Kind::LateSettlement, ..settlement(request, 0, balances, price, cost, at) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const REQUEST: RequestId = RequestId::from_uuid(Uuid::nil());
    const AT: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn balances() -> impl Strategy<Value = Balances> {
        // Also what cannot be today: something in the wallet while something is owed.
        let amount = || prop_oneof![Just(0), 0..1_000_000_000_i64];
        (amount(), amount(), amount()).prop_map(|(wallet, held, debt)| Balances { wallet, held, debt })
    }

    proptest! {
        /// [B-34] [B-40]
        #[test]
        fn every_posting_sums_to_zero_and_leaves_no_account_on_its_wrong_side(
            balances in balances(), hold in 0..1_000_000_000_i64, price in 0..2_000_000_000_i64, cost in 0..2_000_000_000_i64
        ) {
            let organization = OrganizationId::from_uuid(Uuid::nil());
            let lease = LeaseId::from_uuid(Uuid::nil());
            for posting in [signup_grant(organization, hold, AT), void(REQUEST, hold, balances, AT), lease_return(lease, "closed", hold, balances, AT),
                settlement(REQUEST, hold, balances, price, cost, AT), late_settlement(REQUEST, balances, price, cost, AT)] {
                prop_assert_eq!(posting.entries.iter().map(|(_, amount)| amount).sum::<i64>(), 0);
                prop_assert!(posting.entries.len() >= 2);
                prop_assert!(balances.wallet + posting.moved(Account::Wallet) >= 0);
                prop_assert!(posting.moved(Account::Debt) <= balances.debt, "more was repaid than is owed");
            }
            for held in [reservation(REQUEST, hold, AT), super::lease(lease, 1, hold, AT)] {
                prop_assert_eq!(held.entries.iter().map(|(_, amount)| amount).sum::<i64>(), 0);
            }
        }

        /// [B-40]
        #[test]
        fn a_settlement_posts_all_that_was_used_and_owes_only_what_the_wallet_does_not_have(
            balances in balances(), hold in 0..1_000_000_000_i64, price in 0..2_000_000_000_i64, cost in 0..2_000_000_000_i64
        ) {
            let settled = settlement(REQUEST, hold, balances, price, cost, AT);
            prop_assert!(settled.entries.iter().all(|(account, _)| account.belongs_to_organization() || HOUSE_ACCOUNTS_OF_SETTLEMENTS.contains(account)));
            prop_assert_eq!(settled.moved(Account::Revenue), price, "what was used is posted whole");
            prop_assert_eq!(settled.moved(Account::Holds), -hold, "the hold is resolved whole");
            prop_assert_eq!(settled.moved(Account::Wallet) + settled.moved(Account::Debt), hold - price, "nothing is lost");
            if settled.moved(Account::Debt) < 0 {
                prop_assert_eq!(balances.wallet + settled.moved(Account::Wallet), 0, "debt only when the wallet is empty");
            }
        }

        /// What comes back goes to the debt before it goes to the wallet.
        #[test]
        fn debt_is_repaid_by_what_returns(balances in balances(), hold in 0..1_000_000_000_i64, price in 0..1_000_000_000_i64) {
            let settled = settlement(REQUEST, hold, balances, price.min(hold), 0, AT);
            for (posting, returns) in [(void(REQUEST, hold, balances, AT), hold), (settled, hold - price.min(hold))] {
                prop_assert_eq!(posting.moved(Account::Debt), returns.min(balances.debt));
                prop_assert_eq!(posting.moved(Account::Wallet), returns - returns.min(balances.debt));
            }
        }
    }
}
