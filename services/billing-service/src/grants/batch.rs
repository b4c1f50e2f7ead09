//! Which lots pay for a batch of settlements: read once, decided in order, written at once.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::burn as pure;
use super::issue::{NewGrant, add};
use super::lot::{Lot, Source, Use};
use super::store::{self, Moved, Movement};
use crate::error::Error;
use crate::ledger::Balances;
use crate::ledger::chart::Account;
use crate::ledger::postings::{self, Posting};
use crate::state::AppState;

/// The lots of some organizations, while a batch is decided; their accounts must be locked.
#[derive(Debug)]
pub struct Payments {
    lots: HashMap<OrganizationId, Vec<Lot>>,
    moved: Vec<Moved>,
    now: DateTime<Utc>,
}

impl Payments {
    /// Reads the lots.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(state: &AppState, transaction: &mut Transaction<'static, Postgres>, organizations: &[Uuid]) -> Result<Self, Error> {
        let now = state.clock.now();
        Ok(Self { lots: store::lots_of(&mut **transaction, organizations, now).await?, moved: Vec::new(), now })
    }

    /// What an organization with these balances has for something now, without any overdraft; below zero when more is owed than that.
    #[must_use]
    pub fn spendable(&self, organization: OrganizationId, balances: Balances, wanted: Use<'_>) -> i64 {
        pure::spendable(self.lots.get(&organization).map_or(&[], Vec::as_slice), &[], balances, wanted, self.now)
    }

    /// Lets lots pay for what a posting takes out of an organization's wallet and holds, as [`follow`](super::follow) does; the posting
    /// that completes it, when no lot may pay for all of it.
    pub fn follow(&mut self, organization: OrganizationId, posting: &Posting, wanted: Use<'_>, at: DateTime<Utc>) -> Vec<Posting> {
        let used = posting.credit_used();
        let repaid = posting.moved(Account::Debt).clamp(0, used.max(0));
        let key = &posting.lot_key();
        let booked = posting.occurred_at;
        let repayment = self.pay(organization, Movement::Repayment, repaid, Use::ANYTHING, key, (at, booked));
        let burn = self.pay(organization, Movement::Burn, used - repaid, wanted, key, (at, booked));
        repayment.into_iter().chain(burn).collect()
    }

    /// Gives back to lots what a posting brings an organization of what was taken for the same request, the last first [B-45]; what came
    /// from none of them is a lot of its own.
    ///
    /// # Errors
    /// The database's.
    pub async fn give_back(
        &mut self,
        state: &AppState,
        transaction: &mut Transaction<'static, Postgres>,
        organization: OrganizationId,
        posting: &Posting,
    ) -> Result<(), Error> {
        let (amount, at) = (posting.moved(Account::Wallet).max(0), posting.occurred_at);
        let recorded = store::recorded(transaction, organization, Movement::Burn, &posting.external_key).await?;
        let key = format!("{}:{}", posting.kind.as_str(), posting.external_key);
        let mut rest = amount;
        for (burned, part) in pure::unwind(&recorded, amount) {
            let lots = self.lots.entry(organization).or_default();
            lots.iter_mut().filter(|lot| lot.id == burned.grant).for_each(|lot| lot.remaining += part);
            let (grant, key, reverses) = (burned.grant, key.clone(), Some(burned.movement));
            self.moved.push(Moved { grant, movement: Movement::Unwind, key, amount: part, reverses, at });
            rest -= part;
        }
        if rest > 0 {
            add(state, transaction, organization, &NewGrant::plain(Source::Refund, key, rest), at).await?;
        }
        Ok(())
    }

    fn pay(
        &mut self,
        organization: OrganizationId,
        movement: Movement,
        amount: i64,
        wanted: Use<'_>,
        key: &str,
        (at, booked): (DateTime<Utc>, DateTime<Utc>),
    ) -> Option<Posting> {
        let lots = self.lots.entry(organization).or_default();
        let paid = pure::burn(lots, amount, wanted, at);
        let missing = amount.max(0) - paid.iter().map(|(_, part)| part).sum::<i64>();
        for (grant, part) in paid {
            lots.iter_mut().filter(|lot| lot.id == grant).for_each(|lot| lot.remaining -= part);
            self.moved.push(Moved { grant, movement, key: key.to_owned(), amount: -part, reverses: None, at: booked });
        }
        (missing > 0).then(|| {
            metrics::counter!("billing_shortfalls_total").increment(1);
            postings::shortfall(format!("{}:{key}", movement.as_str()), missing, booked)
        })
    }

    /// Writes what was paid.
    ///
    /// # Errors
    /// The database's.
    pub async fn write(self, transaction: &mut Transaction<'static, Postgres>) -> Result<(), Error> {
        store::insert_all(transaction, &self.moved).await
    }
}
