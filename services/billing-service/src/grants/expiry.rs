//! Credit expires: by the sweeper, and before anybody is told what may be spent.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use futures::{StreamExt, stream};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::burn;
use super::lot::Lot;
use super::store::{self, Movement};
use crate::error::Error;
use crate::ledger::{self, Balances, postings};
use crate::state::AppState;

const BATCH: i64 = 100;
/// Organizations at once: what comes with the first of a month ends with it.
const LANES: usize = 4;

/// Lets expire what has, under the lock of the organization's accounts; returns how much, in micro-units. Doing it twice changes
/// nothing.
///
/// # Errors
/// The database's.
pub async fn expire(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
) -> Result<i64, Error> {
    let balances = ledger::lock(transaction, organization).await?;
    let lots = store::lots(&mut **transaction, organization, state.clock.now()).await?;
    expire_lots(state, transaction, organization, balances, &lots).await
}

/// The same with what the caller has read under the lock.
pub(super) async fn expire_lots(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    balances: Balances,
    lots: &[Lot],
) -> Result<i64, Error> {
    let now = state.clock.now();
    let mut wallet = balances.wallet.max(0);
    let (mut expired, mut posted) = (0_i64, Vec::new());
    for (lot, amount) in burn::expiring(lots, now) {
        // Never from under a hold, whatever two clocks think of when it was made.
        let amount = amount.min(wallet);
        if amount == 0 {
            continue;
        }
        let key = format!("{}:{}", lot.id, lot.version);
        store::move_lots(transaction, Movement::Expiry, &key, &[(lot.id, -amount)], now).await?;
        posted.push(postings::expiry(&key, amount, now));
        wallet -= amount;
        expired += amount;
    }
    // Last: from the first of them on others wait for the house's accounts.
    for posting in &posted {
        ledger::post(state, transaction, Some(organization), crate::ledger::CREDIT, posting).await?;
    }
    Ok(expired)
}

/// Sweeps until the token is cancelled.
pub async fn sweep_until(state: &AppState, every: Duration, stop: &CancellationToken) {
    keep_running("grant-expiry", stop, every, || async {
        sweep(state).await?;
        Ok(())
    })
    .await;
}

/// Lets expire what has, organization by organization, each in a transaction of its own; returns the amount in micro-units. Any number
/// of replicas may sweep at once.
///
/// # Errors
/// The database's, the first of them; all that could be swept is.
pub async fn sweep(state: &AppState) -> Result<i64, Error> {
    let (mut last, mut expired, mut failed) = (Uuid::nil(), 0, None);
    loop {
        let organizations = sqlx::query_scalar!(
            "select distinct organization_id from grants
             where state = 'active' and expires_at <= $1 and organization_id > $2 order by organization_id limit $3",
            state.clock.now(),
            last,
            BATCH
        )
        .fetch_all(&state.pool)
        .await?;
        let next = organizations.last().copied();
        let expiring = organizations.into_iter().map(|organization| async move {
            let organization = OrganizationId::from_uuid(organization);
            let amount: Result<i64, Error> = in_transaction!(state.pool, |transaction| { expire(state, transaction, organization).await });
            amount
        });
        // One that cannot be swept now does not keep the others.
        let swept: Vec<Result<i64, Error>> = stream::iter(expiring).buffer_unordered(LANES).collect().await;
        for amount in swept {
            match amount {
                Ok(amount) => expired += amount,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let Some(next) = next else { break };
        last = next;
    }
    if expired > 0 {
        metrics::counter!("billing_breakage_micros_total").increment(expired.unsigned_abs());
    }
    failed.map_or(Ok(expired), Err)
}
