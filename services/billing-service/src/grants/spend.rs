//! What may be spent, and which lots pay for what was.

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};

use super::burn as pure;
use super::expiry::expire_lots;
use super::lot::{GrantId, Lot, Use};
use super::store::{self, Movement};
use crate::error::Error;
use crate::ledger::chart::Account;
use crate::ledger::postings::{self, Posting};
use crate::ledger::{self, Balances};
use crate::state::AppState;

/// What may be spent on something now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spendable {
    /// The amount in micro-units, the overdraft counted in; below zero when more is owed. The limit of holds, to the last micro-unit [B-39].
    pub micros: i64,
    /// What leases for single other models keep of lots that might pay for it too, in micro-units.
    pub bound: i64,
    /// When some of it expires next: a hold for requests to come should end no later.
    pub until: Option<DateTime<Utc>>,
    /// The balances that it was computed from, under the lock that was taken.
    pub balances: Balances,
}

/// Locks the organization's accounts, lets expire what has, and says what may be spent.
///
/// # Errors
/// The database's.
pub async fn spendable(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    wanted: Use<'_>,
) -> Result<Spendable, Error> {
    let now = state.clock.now();
    let mut balances = ledger::lock(transaction, organization).await?;
    let mut lots = store::lots(&mut **transaction, organization, now).await?;
    // Nearly always nothing has: this is asked before each hold.
    if expire_lots(state, transaction, organization, balances, &lots).await? > 0 {
        balances = ledger::lock(transaction, organization).await?;
        lots = store::lots(&mut **transaction, organization, now).await?;
    }
    let overdraft = store::overdraft(&mut **transaction, organization).await?;
    let usable = lots.iter().filter(|lot| lot.is_valid_at(now) && lot.pays_for(wanted));
    let until = usable.filter_map(|lot| lot.expires_at).min();
    let mut holds = store::model_holds(&mut **transaction, organization).await?;
    let micros = pure::spendable(&lots, &holds, balances, wanted, now).saturating_add(overdraft);
    holds.retain(|hold| Use::model(&hold.model) != wanted);
    Ok(Spendable { micros, bound: pure::bound(&lots, &holds, wanted, now), until, balances })
}

/// Lets lots pay for what a posting took out of an organization's wallet and holds: usage by lots that may pay for it, debt that was
/// repaid by lots that may pay for everything. Called in the posting's transaction, under the lock of the accounts; `at` is when the
/// request was admitted.
///
/// # Errors
/// The database's.
pub async fn follow(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    posting: &Posting,
    wanted: Use<'_>,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    let used = posting.credit_used();
    let repaid = posting.moved(Account::Debt).clamp(0, used.max(0));
    let key = posting.lot_key();
    pay(state, transaction, organization, Movement::Repayment, repaid, Use::ANYTHING, &key, (at, posting.occurred_at), None).await?;
    pay(state, transaction, organization, Movement::Burn, used - repaid, wanted, &key, (at, posting.occurred_at), None).await
}

/// Lets lots pay an amount that has left an organization's wallet and holds, for one fact (`key`, the request). What no lot may pay is
/// owed: the credit of the others stays.
///
/// # Errors
/// The database's.
pub async fn burn(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    amount: i64,
    wanted: Use<'_>,
    key: &str,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    pay(state, transaction, organization, Movement::Burn, amount, wanted, key, (at, state.clock.now()), None).await
}

/// The same for any movement, and when it was booked; a lot that is named pays before all others.
#[expect(clippy::too_many_arguments, reason = "one place that every way of taking from lots goes through")]
pub(super) async fn pay(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    movement: Movement,
    amount: i64,
    wanted: Use<'_>,
    key: &str,
    (at, now): (DateTime<Utc>, DateTime<Utc>),
    first: Option<GrantId>,
) -> Result<(), Error> {
    if amount <= 0 {
        return Ok(());
    }
    let mut lots: Vec<Lot> = store::lots(&mut **transaction, organization, now).await?;
    // A stable sort: the others keep their order.
    lots.sort_by_key(|lot| Some(lot.id) != first);
    let named = lots.iter().filter(|lot| Some(lot.id) == first).map(|lot| (lot.id, lot.remaining.min(amount)));
    let mut paid: Vec<(GrantId, i64)> = named.filter(|(_, part)| *part > 0).collect();
    let left = amount - paid.iter().map(|(_, part)| part).sum::<i64>();
    lots.retain(|lot| Some(lot.id) != first);
    paid.extend(pure::burn(&lots, left, wanted, at));
    let missing = amount - paid.iter().map(|(_, part)| part).sum::<i64>();
    let moved: Vec<(GrantId, i64)> = paid.into_iter().map(|(grant, part)| (grant, -part)).collect();
    store::move_lots(transaction, movement, key, &moved, now).await?;
    if missing > 0 {
        metrics::counter!("billing_shortfalls_total").increment(1);
        let posting = postings::shortfall(format!("{}:{key}", movement.as_str()), missing, now);
        ledger::post(state, transaction, Some(organization), crate::ledger::CREDIT, &posting).await?;
    }
    Ok(())
}
