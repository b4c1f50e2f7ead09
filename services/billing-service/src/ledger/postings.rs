//! One pure function for each business event: what it moves. Nothing else makes entries. Their table is in
//! `docs/architecture/LEDGER.md`.

mod credit;
mod exchange;
mod holds;
#[cfg(test)]
mod properties;
mod refunds;

use chrono::{DateTime, Utc};
use money::Currency;

use super::Balances;
use super::chart::Account;

pub use credit::{
    adjustment, balance_correction, credit_note, expiry, grant, revocation, rounding, sale, signup_grant, transfer_in, transfer_out,
};
pub use exchange::{Exchange, Rate, Sale};
pub use holds::{late_settlement, lease, lease_return, reservation, settlement, shortfall, void};
pub use refunds::{Fee, dispute_lost, dispute_opened, dispute_won, refund, usage_refund};

/// What a ledger transaction is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Credit for signing up.
    SignupGrant,
    /// Credit that the house gives.
    Grant,
    /// Credit that was paid for.
    Sale,
    /// Credit that expired.
    Expiry,
    /// Credit that the house took back.
    Revocation,
    /// A correction by hand.
    Adjustment,
    /// Credit that left for another wallet.
    TransferOut,
    /// Credit that came from another wallet.
    TransferIn,
    /// A hold for a request.
    Reservation,
    /// A hold for requests to come.
    Lease,
    /// What of a lease was not used.
    LeaseReturn,
    /// What a request used, and the rest of its hold back.
    Settlement,
    /// A hold given back whole.
    Void,
    /// What a request used that had been given up for dead.
    LateSettlement,
    /// What no credit was allowed to pay, and is owed.
    Shortfall,
    /// Usage given back as credit.
    UsageRefund,
    /// Money given back for credit that was bought.
    Refund,
    /// A bank took money back and asks why it was charged.
    DisputeOpened,
    /// The money stays with the house: the credit returns.
    DisputeWon,
    /// The money is gone.
    DisputeLost,
    /// What the minor unit of a payment made more or less of an amount.
    Rounding,
    /// What was credited to a customer's balance at Stripe for an invoice that was paid.
    CreditNote,
    /// What somebody changed of a customer's balance at Stripe by hand.
    BalanceCorrection,
}

impl Kind {
    /// Its name in the database and in statements.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignupGrant => "signup_grant",
            Self::Grant => "grant",
            Self::Sale => "sale",
            Self::Expiry => "expiry",
            Self::Revocation => "revocation",
            Self::Adjustment => "adjustment",
            Self::TransferOut => "transfer_out",
            Self::TransferIn => "transfer_in",
            Self::Reservation => "reservation",
            Self::Lease => "lease",
            Self::LeaseReturn => "lease_return",
            Self::Settlement => "settlement",
            Self::Void => "void",
            Self::LateSettlement => "late_settlement",
            Self::Shortfall => "shortfall",
            Self::UsageRefund => "usage_refund",
            Self::Refund => "refund",
            Self::DisputeOpened => "dispute_opened",
            Self::DisputeWon => "dispute_won",
            Self::DisputeLost => "dispute_lost",
            Self::Rounding => "rounding",
            Self::CreditNote => "credit_note",
            Self::BalanceCorrection => "balance_correction",
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
    /// What moves in another currency beside it, on accounts of the house, and sums to zero by itself: what was paid, where that was
    /// exchanged for credit; or the fee of a dispute.
    pub money: Option<(Currency, Vec<(Account, i64)>)>,
}

impl Posting {
    fn new(kind: Kind, key: impl Into<String>, at: DateTime<Utc>, entries: Vec<(Account, i64)>) -> Self {
        Self { kind, external_key: key.into(), occurred_at: at, entries, money: None }
    }

    /// Whether it moves nothing at all: then there is nothing to post, and the ledger would refuse it.
    #[must_use]
    pub fn moves_nothing(&self) -> bool {
        let money = self.money.iter().flat_map(|(_, entries)| entries);
        self.entries.iter().chain(money).all(|(_, amount)| *amount == 0)
    }

    /// What it moves on an account, in the currency of its entries.
    #[must_use]
    pub fn moved(&self, account: Account) -> i64 {
        self.entries.iter().filter(|(entry, _)| *entry == account).map(|(_, amount)| amount).sum()
    }

    /// The fact, as movements of lots name it: a request that was given up for dead and reports after all is paid for twice, a part each time.
    #[must_use]
    pub fn lot_key(&self) -> String {
        match self.kind {
            Kind::LateSettlement => format!("{}:late", self.external_key),
            _ => self.external_key.clone(),
        }
    }

    /// What of an organization's credit it uses up, in or out of holds; below zero when it brings some. This much leaves its lots.
    #[must_use]
    pub fn credit_used(&self) -> i64 {
        -(self.moved(Account::Wallet) + self.moved(Account::Holds))
    }
}

/// How an amount comes to an organization: what stands below zero in the wallet first, because holds rest on it, then its debt; the
/// rest is for its wallet. First the wallet's part, then the debt's.
fn returned(amount: i64, balances: Balances) -> (i64, i64) {
    let overdrawn = (-balances.wallet).clamp(0, amount);
    let repaid = (amount - overdrawn).min(balances.debt.max(0));
    (amount - repaid, repaid)
}

/// How an amount leaves an organization although it may not be there: from the wallet as far as it reaches, and owed beyond that.
/// First the wallet's part, then the debt's; both are amounts to be added.
fn taken(amount: i64, balances: Balances) -> (i64, i64) {
    let from_wallet = amount.min(balances.wallet.max(0));
    (-from_wallet, from_wallet - amount)
}
