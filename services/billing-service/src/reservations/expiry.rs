//! The end of a hold whose deadline has passed: the process that held it is dead. It goes back, and one usage row says so [B-42].

use contracts::ReservationId;
use contracts::usage::CountedBy;
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};

use super::store::{find, release, resolve};
use crate::error::Error;
use crate::state::AppState;
use crate::usage;

/// Holds that are ended in one transaction, where all are.
const MOST: usize = 500;

/// Ends a hold; false when somebody else did since it was read. What can fail without the database fails before anything is
/// written.
///
/// # Errors
/// The database's, or why the request has no rates any more.
pub async fn end(state: &AppState, transaction: &mut Transaction<'static, Postgres>, id: ReservationId) -> Result<bool, Error> {
    let Some(held) = find(transaction, id).await?.filter(|held| held.state == "held") else { return Ok(false) };
    usage::record_abandoned(state, transaction, &held, CountedBy::Abandoned).await?;
    chassis::step!("reservation.recorded");
    release(state, transaction, &held).await?;
    resolve(state, transaction, id, "abandoned").await?;
    Ok(true)
}

/// Ends an organization's own expired holds, oldest first, until `missing` has come back; none where all of them would not be
/// enough. Whoever needs the money does not depend on the sweeper for it.
///
/// # Errors
/// The database's.
pub async fn free(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    missing: i64,
) -> Result<(), Error> {
    let expired = expired(state, transaction, organization).await?;
    if expired.iter().map(|(_, amount)| *amount).fold(0, i64::saturating_add) < missing {
        return Ok(());
    }
    end_oldest(state, transaction, expired, missing).await
}

/// Ends an organization's own expired holds, the oldest [`MOST`] of them: before it buys more, what it has is counted.
///
/// # Errors
/// The database's.
pub async fn free_all(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
) -> Result<(), Error> {
    let mut expired = expired(state, transaction, organization).await?;
    expired.truncate(MOST);
    end_oldest(state, transaction, expired, i64::MAX).await
}

/// Which there are with their amounts, oldest first.
async fn expired(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
) -> Result<Vec<(ReservationId, i64)>, Error> {
    let rows = sqlx::query!(
        "select id, amount_micros from reservations where organization_id = $1 and state = 'held' and expires_at <= $2 order by expires_at, id",
        organization.uuid(),
        state.clock.now()
    );
    let rows = rows.fetch_all(&mut **transaction).await?;
    Ok(rows.into_iter().map(|row| (ReservationId::from_uuid(row.id), row.amount_micros)).collect())
}

async fn end_oldest(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    expired: Vec<(ReservationId, i64)>,
    missing: i64,
) -> Result<(), Error> {
    let (mut freed, mut ended) = (0_i64, 0);
    for (id, amount) in expired {
        if freed >= missing {
            break;
        }
        match end(state, transaction, id).await {
            Ok(true) => (freed, ended) = (freed.saturating_add(amount), ended + 1),
            Ok(false) => {}
            // After an error of its own a transaction of Postgres cannot go on.
            Err(Error::Database(error)) => return Err(error.into()),
            Err(error) => note_stuck(id, &error),
        }
    }
    note_ended(ended);
    Ok(())
}

/// Counts holds that were ended.
pub fn note_ended(holds: u64) {
    if holds > 0 {
        metrics::counter!("billing_reservations_abandoned_total").increment(holds);
        tracing::warn!(reservations = holds, "holds of dead processes were given back");
    }
}

/// Counts a hold that cannot be ended.
pub fn note_stuck(id: ReservationId, error: &Error) {
    metrics::counter!("billing_reservations_stuck_total").increment(1);
    tracing::error!(reservation.id = %id, error.message = error.chain(), "an expired hold could not be ended and will be tried again");
}
