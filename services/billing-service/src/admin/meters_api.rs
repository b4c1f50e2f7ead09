//! `/v1/admin/stripe/meters/…`: what of usage is kept at Stripe's meters too, as `billing-service stripe meters` does it.

use axum::extract::State;
use chassis::http::{Json, Path};
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use identity::CallingService;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{List, Reason, SCOPE_READ, decision};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::meters::mirrors::{self, Mirror, NewMirror, Source};
use crate::stripe::meters::parked::{self, Parked};

/// What is kept, and how many reports wait or were set aside.
pub async fn list(State(state): State<AppState>, caller: CallingService) -> Result<axum::Json<List<Mirror>>, Error> {
    caller.require(SCOPE_READ)?;
    Ok(axum::Json(List { data: mirrors::list(&state).await? }))
}

/// Something to be reported from now on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    by: Reason,
    event_name: String,
    of: Source,
    #[serde(default)]
    decimals: i32,
    since: Option<DateTime<Utc>>,
}

/// Reports something from now on.
pub async fn add(
    State(state): State<AppState>,
    caller: CallingService,
    headers: HeaderMap,
    Json(Add { by, event_name, of, decimals, since }): Json<Add>,
) -> Result<StatusCode, Error> {
    let decision = decision(&state, &caller, &headers, by)?;
    mirrors::add(&state, &decision, &NewMirror { event_name, source: of, decimals, since }).await?;
    Ok(StatusCode::CREATED)
}

/// Who stops it and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    by: Reason,
}

/// Reports nothing more of what is used from the next hour on.
pub async fn stop(
    State(state): State<AppState>,
    caller: CallingService,
    Path(event_name): Path<String>,
    headers: HeaderMap,
    Json(Stop { by }): Json<Stop>,
) -> Result<StatusCode, Error> {
    let decision = decision(&state, &caller, &headers, by)?;
    mirrors::stop(&state, &decision, &event_name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reports that Stripe did not want.
pub async fn parked(State(state): State<AppState>, caller: CallingService) -> Result<axum::Json<List<Parked>>, Error> {
    caller.require(SCOPE_READ)?;
    Ok(axum::Json(List { data: parked::list(&state).await? }))
}

/// Reports to send again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    by: Reason,
    /// Which; all but unclear ones if empty.
    #[serde(default)]
    identifiers: Vec<String>,
    /// Whether they are dated now, where they are too old for Stripe.
    #[serde(default)]
    dated_now: bool,
}

/// Sends reports again that were set aside.
pub async fn replay(
    State(state): State<AppState>,
    caller: CallingService,
    headers: HeaderMap,
    Json(Replay { by, identifiers, dated_now }): Json<Replay>,
) -> Result<axum::Json<Value>, Error> {
    let decision = decision(&state, &caller, &headers, by)?;
    Ok(axum::Json(json!({"identifiers": parked::replay(&state, &decision, &identifiers, dated_now).await?})))
}
