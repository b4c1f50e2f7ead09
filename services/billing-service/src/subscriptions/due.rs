//! The calendar: renews what is over, ends what waited too long. Any number of replicas may look; each row is one's.

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::TimeDelta;
use identity::OrganizationId;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{SubscriptionId, store};
use crate::error::Error;
use crate::lanes;
use crate::state::AppState;

/// Who changed a subscription, when nobody did.
const ACTOR: &str = "calendar";
/// The pause after a row that cannot be decided: it must not keep the others from their turn.
const SET_ASIDE: TimeDelta = TimeDelta::hours(1);
/// Subscriptions that are decided at once: on the first of a month many are due.
const LANES: usize = 4;

/// Looks until the token is cancelled.
pub async fn run_until(state: &AppState, pause: Duration, stop: &CancellationToken) {
    keep_running("subscriptions-due", stop, pause, || async {
        lanes::drain(LANES, stop, || step(state)).await?;
        Ok(())
    })
    .await;
}

/// Decides the one that has been due for longest; false when none is.
///
/// # Errors
/// The database's.
pub async fn step(state: &AppState) -> Result<bool, Error> {
    in_transaction!(state.pool, |transaction| {
        let now = state.clock.now();
        let due = sqlx::query!(
            "select id, organization_id, state from subscriptions where next_action_at <= $1 order by next_action_at, id limit 1
             for no key update skip locked",
            now
        )
        .fetch_optional(&mut **transaction)
        .await?;
        let Some(due) = due else { return Ok(false) };
        let (id, organization) = (SubscriptionId::from_uuid(due.id), OrganizationId::from_uuid(due.organization_id));
        let command =
            store::due_command(&store::read(due.state)?, now).ok_or(Error::Internal("nothing is to be done about what is due"))?;
        let span = tracing::info_span!(parent: None, "subscription.due", otel.name = "subscription due", subscription.id = %id);
        match store::apply(state, transaction, organization, id, &command, ACTOR).instrument(span).await {
            Ok(_) => {}
            // A refusal is decided before anything is written, so the transaction can go on.
            Err(Error::Refused(problem)) => {
                tracing::error!(subscription.id = %id, problem.code = problem.code(), "a subscription that is due cannot be decided; it is set aside for an hour");
                sqlx::query!("update subscriptions set next_action_at = $2 where id = $1", due.id, now + SET_ASIDE)
                    .execute(&mut **transaction)
                    .await?;
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    })
}
