//! Moves who is on an older version of a plan to the one that is sold now, when their period ends: an operator's explicit wish, for
//! by itself a new catalogue changes nothing for who is there.

use chassis::in_transaction;
use identity::OrganizationId;
use uuid::Uuid;

use super::command::Command;
use super::terms::Terms;
use super::{SubscriptionId, store};
use crate::catalog::{Code, stored};
use crate::error::Error;
use crate::state::AppState;

const PAGE: i64 = 500;

/// What became of the subscriptions of older versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// They become the new version when their period ends.
    pub moving: usize,
    /// They stay: they end, or become something else already, or the new version is not sold as they pay.
    pub staying: usize,
}

/// Moves them, each in a transaction of its own; asked again, it goes on where it was broken off.
///
/// # Errors
/// [`Error::NotFound`] when the plan is not sold; the database's.
pub async fn to_current(state: &AppState, plan: &Code, actor: &str) -> Result<Moved, Error> {
    let sold = stored::sold(&mut *state.pool.acquire().await?, plan).await?;
    let (mut after, mut moved) = (Uuid::nil(), Moved::default());
    loop {
        let page = sqlx::query!(
            "select id, organization_id from subscriptions where id > $1 and plan_code = $2 and plan_version < $3
               and status in ('trialing', 'active', 'past_due') order by id limit $4",
            after,
            plan.as_str(),
            sold.version,
            PAGE
        )
        .fetch_all(&state.pool)
        .await?;
        let Some(last) = page.last() else { return Ok(moved) };
        after = last.id;
        for row in &page {
            let (organization, id) = (OrganizationId::from_uuid(row.organization_id), SubscriptionId::from_uuid(row.id));
            match move_one(state, organization, id, &sold, actor).await {
                Ok(true) => moved.moving += 1,
                Ok(false) | Err(Error::Refused(_)) => moved.staying += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

async fn move_one(
    state: &AppState,
    organization: OrganizationId,
    id: SubscriptionId,
    sold: &stored::PlanVersion,
    actor: &str,
) -> Result<bool, Error> {
    in_transaction!(state.pool, |transaction| {
        let subscription = store::find(transaction, organization, id).await?;
        // What the customer wants comes first.
        if subscription.pending.as_ref().is_some_and(|pending| pending.terms.plan != sold.code) {
            return Ok(false);
        }
        let seats = subscription.pending.as_ref().map_or(subscription.seats, |pending| pending.seats);
        let terms = Terms::of(sold, subscription.terms.currency, subscription.terms.interval)?;
        let command = Command::Downgrade { terms: Box::new(terms), seats };
        store::apply(state, transaction, organization, id, &command, actor).await?;
        Ok(true)
    })
}
