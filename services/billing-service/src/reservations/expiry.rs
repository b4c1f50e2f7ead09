//! The end of a hold whose deadline has passed: the process that held it is dead. It goes back, and one usage row says so [B-42].

use contracts::ReservationId;
use contracts::usage::CountedBy;
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};

use super::store::{find, release, resolve};
use crate::error::Error;
use crate::state::AppState;
use crate::usage;

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
    let expired = sqlx::query!(
        "select id, amount_micros from reservations where organization_id = $1 and state = 'held' and expires_at <= $2 order by expires_at, id",
        organization.uuid(),
        state.clock.now()
    )
    .fetch_all(&mut **transaction)
    .await?;
    if expired.iter().map(|hold| hold.amount_micros).fold(0, i64::saturating_add) < missing {
        return Ok(());
    }
    let (mut freed, mut ended) = (0, 0);
    for hold in expired {
        if freed >= missing {
            break;
        }
        let id = ReservationId::from_uuid(hold.id);
        match end(state, transaction, id).await {
            Ok(true) => (freed, ended) = (freed + hold.amount_micros, ended + 1),
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
