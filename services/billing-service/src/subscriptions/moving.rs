//! Moves who is on an older version of a plan to the one that is sold now, when their period ends: an operator's explicit wish, for
//! by itself a new catalogue changes nothing for who is there.

use chassis::in_transaction;
use identity::OrganizationId;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::command::Command;
use super::terms::Terms;
use super::{SubscriptionId, store};
use crate::audit::{self, Change, Decision};
use crate::catalog::{Code, stored};
use crate::error::Error;
use crate::state::AppState;

/// The verb in the log of operators.
const ACTION: &str = "catalog.move";

const PAGE: i64 = 500;

/// What became of the subscriptions of older versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// They become the new version when their period ends.
    pub moving: usize,
    /// They stay: they end, or become something else already, or the new version is not sold as they pay.
    pub staying: usize,
}

/// A move that was decided and logged, and is to be [carried out](Move::carry_out).
#[derive(Debug)]
pub struct Move {
    sold: stored::PlanVersion,
    decision: Decision,
}

/// Logs that who is on an older version of a plan is to be moved to the one that is sold now; nobody is moved yet. Repeated under its key
/// it is the same move, unless another version is sold since: then it is refused.
///
/// # Errors
/// A decision without a name or a reason; [`Error::NotFound`] when the plan is not sold; the database's.
pub async fn decide(state: &AppState, decision: Decision, plan: &Code) -> Result<Move, Error> {
    decision.check()?;
    let sold = in_transaction!(state.pool, |transaction| {
        let sold = stored::sold(transaction, plan).await?;
        let request = json!({"plan": plan, "version": sold.version});
        if audit::earlier(transaction, &decision, ACTION, None, &request).await?.is_none() {
            let (before, after) = (json!(null), json!({"version": sold.version}));
            let change = Change { action: ACTION, organization: None, request: &request, before: &before, after: &after };
            audit::record(state, transaction, &decision, &change).await?;
        }
        Ok::<_, Error>(sold)
    })?;
    Ok(Move { sold, decision })
}

impl Move {
    /// Moves them, each in a transaction of its own with a row in the log of operators [B-78]: a plan may have more customers than one
    /// transaction should hold. Asked again, it goes on where it was broken off.
    ///
    /// # Errors
    /// The database's.
    pub async fn carry_out(&self, state: &AppState) -> Result<Moved, Error> {
        let (mut after, mut moved) = (Uuid::nil(), Moved::default());
        loop {
            let page = sqlx::query!(
                "select id, organization_id from subscriptions where id > $1 and plan_code = $2 and plan_version < $3
               and status in ('trialing', 'active', 'past_due') order by id limit $4",
                after,
                self.sold.code.as_str(),
                self.sold.version,
                PAGE
            )
            .fetch_all(&state.pool)
            .await?;
            let Some(last) = page.last() else { return Ok(moved) };
            after = last.id;
            for row in &page {
                let (organization, id) = (OrganizationId::from_uuid(row.organization_id), SubscriptionId::from_uuid(row.id));
                match self.one(state, organization, id).await {
                    Ok(true) => moved.moving += 1,
                    Ok(false) | Err(Error::Refused(_)) => moved.staying += 1,
                    Err(error) => return Err(error),
                }
            }
        }
    }

    async fn one(&self, state: &AppState, organization: OrganizationId, id: SubscriptionId) -> Result<bool, Error> {
        let Self { sold, decision } = self;
        // A key of its own for each, so that a repetition finds it.
        let decision = Decision { key: format!("{}/{id}", decision.key), ..decision.clone() };
        let request = json!({"plan": sold.code, "version": sold.version, "subscription": id});
        in_transaction!(state.pool, |transaction| {
            let subscription = store::locked(transaction, organization, id).await?;
            // What the customer wants comes first.
            if subscription.pending.as_ref().is_some_and(|pending| pending.terms.plan != sold.code) {
                return Ok(false);
            }
            // What it wanted after this same move, too.
            if audit::earlier(transaction, &decision, ACTION, Some(organization), &request).await?.is_some() {
                return Ok(subscription.pending.is_some());
            }
            let seats = subscription.pending.as_ref().map_or(subscription.seats, |pending| pending.seats);
            let terms = Terms::of(sold, subscription.terms.currency, subscription.terms.interval)?;
            let command = Command::Downgrade { terms: Box::new(terms), seats };
            let applied = store::apply(state, transaction, organization, id, &command, &decision.actor).await?;
            if applied.subscription != subscription {
                let (before, after) = (json!({"pending": subscription.pending}), json!({"pending": applied.subscription.pending}));
                let change = Change { action: ACTION, organization: Some(organization), request: &request, before: &before, after: &after };
                audit::record(state, transaction, &decision, &change).await?;
            }
            Ok(true)
        })
    }
}
