//! `/v1/admin/subscriptions/…`.

use axum::extract::State;
use axum::response::Response;
use chassis::http::{Json, Path};
use http::HeaderMap;
use identity::{CallingService, OrganizationId};
use serde::Deserialize;

use super::api::{List, Reason, SCOPE_READ, answered, decision};
use crate::error::Error;
use crate::state::AppState;
use crate::subscriptions::SubscriptionId;
use crate::subscriptions::changes::Change;
use crate::subscriptions::operator::{self, OperatorView, Wish};

/// What a customer is subscribed to, and was.
pub async fn list(
    State(state): State<AppState>,
    caller: CallingService,
    Path(organization): Path<OrganizationId>,
) -> Result<axum::Json<List<OperatorView>>, Error> {
    caller.require(SCOPE_READ)?;
    Ok(axum::Json(List { data: operator::list(&state, organization).await? }))
}

/// A change of a subscription.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    by: Reason,
    subscription_id: SubscriptionId,
    change: Change,
    #[serde(default)]
    at_once: bool,
}

/// Changes a subscription as its customer may, or ends it at once.
pub async fn change(
    State(state): State<AppState>,
    caller: CallingService,
    Path(organization): Path<OrganizationId>,
    headers: HeaderMap,
    Json(body): Json<Changed>,
) -> Result<Response, Error> {
    let Changed { by, subscription_id, change, at_once } = body;
    let decision = decision(&state, &caller, &headers, by)?;
    let done = operator::decide(&state, &decision, organization, &Wish { subscription_id, change, at_once }).await?;
    Ok(answered(done.repeated, &done.after))
}
