//! Holds, and what becomes of them.

use chrono::{DateTime, Utc};
use contracts::RequestId;

use super::{Kind, Posting, returned, taken};
use crate::ledger::Balances;
use crate::ledger::chart::Account;

/// A hold for a request: from the wallet to the holds.
#[must_use]
pub fn reservation(request: RequestId, amount: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::Reservation, request.to_string(), at, vec![(Account::Wallet, -amount), (Account::Holds, amount)])
}

/// A hold for requests to come.
#[must_use]
pub fn lease(key: impl Into<String>, amount: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::Lease, key, at, vec![(Account::Wallet, -amount), (Account::Holds, amount)])
}

/// What of a lease was not used, back.
#[must_use]
pub fn lease_return(key: impl Into<String>, amount: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    let (rest, repaid) = returned(amount, balances);
    let entries = vec![(Account::Holds, -amount), (Account::Wallet, rest), (Account::Debt, repaid)];
    Posting::new(Kind::LeaseReturn, key, at, entries)
}

/// A hold of a request given back.
#[must_use]
pub fn void(request: RequestId, held: i64, balances: Balances, at: DateTime<Utc>) -> Posting {
    Posting { kind: Kind::Void, ..lease_return(request.to_string(), held, balances, at) }
}

/// What a request used: from its hold to revenue, the rest back; what goes beyond the hold comes from the wallet as far as it
/// reaches and is owed beyond that, never lost [B-40]. The provider's part is booked beside it.
#[must_use]
pub fn settlement(request: RequestId, held: i64, balances: Balances, price: i64, cost: i64, at: DateTime<Utc>) -> Posting {
    let (rest, repaid) = returned((held - price).max(0), balances);
    let (from_wallet, owed) = taken((price - held).max(0), balances);
    let entries = vec![
        (Account::Holds, -held),
        (Account::Wallet, rest + from_wallet),
        (Account::Debt, repaid + owed),
        (Account::Revenue, price),
        (Account::ProviderCost, -cost),
        (Account::ProviderPayable, cost),
    ];
    Posting::new(Kind::Settlement, request.to_string(), at, entries)
}

/// What a request used whose hold had already ended: it is always recorded [B-43]. Below zero, what it used less than was recorded.
#[must_use]
pub fn late_settlement(request: RequestId, balances: Balances, price: i64, cost: i64, at: DateTime<Utc>) -> Posting {
    Posting { kind: Kind::LateSettlement, ..settlement(request, 0, balances, price, cost, at) }
}

/// What left an organization's credit although none of its lots was allowed to pay it (restricted, expired, or an overdraft): it is
/// owed, and the credit stays. `key` names the posting that it completes.
#[must_use]
pub fn shortfall(key: impl Into<String>, amount: i64, at: DateTime<Utc>) -> Posting {
    Posting::new(Kind::Shortfall, key, at, vec![(Account::Wallet, amount), (Account::Debt, -amount)])
}
