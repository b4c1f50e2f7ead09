//! What operators do with a subscription: what its customer may, and end it at once; with a row in the log of operators [B-78].

use chassis::{Problem, in_transaction};
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SubscriptionId;
use super::changes::{self, Change};
use super::command::Command;
use super::state::{OpenCharge, Subscription};
use super::store::{self, Stored};
use super::view::SubscriptionView;
use crate::audit::{self, Decided, Decision};
use crate::error::Error;
use crate::state::AppState;

/// The verb in the log of operators.
const ACTION: &str = "subscription.change";

/// What is to become of a subscription.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Which.
    pub subscription_id: SubscriptionId,
    /// What its customer could have asked for.
    pub change: Change,
    /// With [`Change::Cancel`]: now, and not when the period ends. Neither money nor credit goes back by that.
    #[serde(default)]
    pub at_once: bool,
}

/// A subscription as operators see it.
#[derive(Debug, Serialize)]
pub struct OperatorView {
    /// As its customer sees it.
    #[serde(flatten)]
    subscription: SubscriptionView,
    /// When it ended.
    ended_at: Option<DateTime<Utc>>,
    /// Charges that were not paid.
    open: Vec<OpenView>,
}

/// A charge that was not paid.
#[derive(Debug, Serialize)]
struct OpenView {
    /// Of the period that began then.
    period_start: DateTime<Utc>,
    /// For what.
    reason: String,
    /// Whether an attempt failed.
    failed: bool,
    /// Whether nobody is to pay it any more.
    given_up: bool,
}

impl From<Stored> for OperatorView {
    fn from(stored: Stored) -> Self {
        let open = |charge: &OpenCharge| OpenView {
            period_start: charge.period_start,
            reason: charge.reason.clone(),
            failed: charge.failed,
            given_up: charge.given_up,
        };
        let (open, ended_at) = (stored.subscription.open.iter().map(open).collect(), stored.subscription.ended_at);
        Self { subscription: stored.into(), ended_at, open }
    }
}

/// The subscriptions of an organization, the newest first and those that are over with them, a hundred at most.
///
/// # Errors
/// The database's.
pub async fn list(state: &AppState, organization: OrganizationId) -> Result<Vec<OperatorView>, Error> {
    let mut connection = state.pool.acquire().await?;
    Ok(store::newest(&mut connection, organization).await?.into_iter().map(Into::into).collect())
}

/// Has something become of a subscription, once for whoever repeats it under its key.
///
/// # Errors
/// [`Error::NotFound`] when the organization has no such subscription; what the machine refuses; the database's.
pub async fn decide(state: &AppState, decision: &Decision, organization: OrganizationId, wish: &Wish) -> Result<Decided, Error> {
    decision.check()?;
    if wish.at_once && !matches!(wish.change, Change::Cancel) {
        return Err(Problem::invalid_field("at_once", "is for cancel only").into());
    }
    let id = wish.subscription_id;
    let shown = |subscription: &Subscription| json!(OperatorView::from(Stored { id, subscription: subscription.clone() }));
    in_transaction!(state.pool, |transaction| {
        let before = store::locked(transaction, organization, id).await?;
        let request: Value = json!(wish);
        if let Some(after) = audit::earlier(transaction, decision, ACTION, Some(organization), &request).await? {
            return Ok(Decided { after, repeated: true });
        }
        let command = match &wish.change {
            Change::Cancel if wish.at_once => Command::CancelNow,
            change => changes::command(transaction, &before, change.clone(), "change.", state.clock.now()).await?,
        };
        let changed = store::apply(state, transaction, organization, id, &command, &decision.actor).await?.subscription;
        let (before, after) = (shown(&before), shown(&changed));
        let logged = audit::Change { action: ACTION, organization: Some(organization), request: &request, before: &before, after: &after };
        audit::record(state, transaction, decision, &logged).await?;
        Ok(Decided { after, repeated: false })
    })
}
