//! What a wallet is, in a few lines without a database: the rules of `docs/architecture/{LEDGER,ADMISSION}.md`, told again by somebody who
//! only read them. Times are milliseconds, amounts micro-units.

use std::collections::BTreeMap;

use super::plans::Plan;

/// What is to be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Anything,
    Chat,
    Large,
}

/// What a lot may pay for: everything, `sim-large`, or only a model that is never called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    All,
    Large,
    Other,
}

#[derive(Debug, Clone)]
pub struct Lot {
    pub remaining: i64,
    pub priority: i32,
    pub expires: Option<i64>,
    pub created: i64,
    pub only: Only,
    /// What was sold and not yet taken back; none for what nobody paid for.
    pub sold: Option<i64>,
    /// What of it expired, and was not taken back since.
    pub expired: i64,
}

impl Lot {
    pub fn is_valid(&self, at: i64) -> bool {
        self.expires.is_none_or(|expires| at < expires)
    }

    pub fn pays(&self, wanted: Wanted) -> bool {
        self.only == Only::All || (self.only, wanted) == (Only::Large, Wanted::Large)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Held,
    Voided,
    Abandoned,
    Settled,
}

/// A request, with a hold of its own or in flight on a lease.
#[derive(Debug, Clone)]
pub struct Request {
    pub lease: Option<usize>,
    pub amount: i64,
    pub started: i64,
    pub deadline: i64,
    pub stage: Stage,
    pub tokens: (u64, u64),
    pub price: i64,
    pub burned: Vec<(usize, i64)>,
    pub given_back: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Open,
    Draining(i64),
    Closed,
}

#[derive(Debug, Clone)]
pub struct Lease {
    /// Of requests of `sim-large` alone; or of all.
    pub large: bool,
    pub opened: i64,
    pub deadline: i64,
    pub funded: i64,
    pub held: i64,
    /// What Redis has.
    pub remaining: i64,
    pub end: End,
}

#[derive(Debug, Clone)]
pub struct Dispute {
    /// Of the sale of this lot.
    pub lot: usize,
    pub amount: i64,
    /// What of that had expired.
    pub expired: i64,
    pub parts: Vec<(usize, i64)>,
    pub is_closed: bool,
}

/// An organization's money.
#[derive(Debug, Clone, Default)]
pub struct Wallet {
    pub now: i64,
    pub credit: i64,
    pub held: i64,
    pub debt: i64,
    pub overdraft: i64,
    pub lots: Vec<Lot>,
    pub requests: Vec<Request>,
    pub leases: Vec<Lease>,
    pub disputes: Vec<Dispute>,
    /// What came to the house's accounts.
    pub house: BTreeMap<&'static str, i64>,
    /// Of the leases for all requests, and of those for `sim-large`.
    pub last_deadline: [i64; 2],
    pub plan: Option<Plan>,
    /// Whether one ever began: the trial is for the first.
    pub had_plan: bool,
    /// Cents that wait on the customer's balance at Stripe for the next invoice: too few to charge a card for.
    pub carried: i64,
}
