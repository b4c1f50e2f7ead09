//! `POST /v1/usage-events`: any service reports what was used.

use axum::body::Bytes;
use axum::extract::State;
use chassis::Problem;
use chassis::http::Query;
use chassis::problem::ProblemBody;
use http::{HeaderMap, StatusCode};
use identity::{Authenticated, CallingService, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cloud_event;
use super::ingest::{ItemResult, Status, ingest};
use crate::error::Error;
use crate::state::AppState;

/// What became of a request's events, one by one. What is told here is committed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Receipt {
    /// In the order of the request.
    results: Vec<ItemResult>,
}

/// Reports usage as `CloudEvents` 1.0: one in JSON or with `ce-` headers, or a batch of at most 1,000. Events are unique by source and id,
/// for ever; a repetition counts once. In a batch each event has its own result; a single one that is rejected is a 422.
#[utoipa::path(post, path = "/v1/usage-events", tag = "metering", security(("bearer" = [])),
    params(("ce-specversion" = Option<String>, Header, description = "Of an event whose attributes are in headers, with `application/json`: `1.0`."),
        ("ce-id" = Option<String>, Header, description = "The same: its id, unique with its source."),
        ("ce-source" = Option<String>, Header, description = "The same: who says so."),
        ("ce-type" = Option<String>, Header, description = "The same: what kind of thing happened."),
        ("ce-subject" = Option<String>, Header, description = "The same: whom it is about."),
        ("ce-time" = Option<String>, Header, description = "The same: when it happened, by RFC 3339; when it came, if absent.")),
    request_body(description = "CloudEvents 1.0: one event, a batch of at most 1,000, or the `data` of one whose attributes are in headers.",
        content((serde_json::Value = "application/cloudevents+json"), (serde_json::Value = "application/cloudevents-batch+json"),
            (serde_json::Value = "application/json"))),
    responses((status = 200, body = Receipt), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 413, body = ProblemBody), (status = 415, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn receive(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    headers: HeaderMap,
    body: Bytes,
) -> Result<axum::Json<Receipt>, Error> {
    principal.require(Scope::UsageWrite)?;
    let received = cloud_event::read(&headers, &body)?;
    answer(received.batch, ingest(&state, principal.organization_id, received.events).await?)
}

/// For whom a service reports.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationQuery {
    organization: OrganizationId,
}

/// The same from a service of our own on the private listener, for any organization.
pub async fn receive_internal(
    State(state): State<AppState>,
    caller: CallingService,
    Query(query): Query<OrganizationQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<axum::Json<Receipt>, Error> {
    caller.require(Scope::UsageWrite.as_str())?;
    let received = cloud_event::read(&headers, &body)?;
    answer(received.batch, ingest(&state, query.organization, received.events).await?)
}

fn answer(batch: bool, results: Vec<ItemResult>) -> Result<axum::Json<Receipt>, Error> {
    match results.as_slice() {
        [only] if !batch && only.status == Status::Rejected => Err(refused(only).into()),
        _ => Ok(axum::Json(Receipt { results })),
    }
}

fn refused(result: &ItemResult) -> Problem {
    let code = result.code.as_deref().unwrap_or("invalid_event");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, "The event counts nowhere")
        .field("event", result.detail.clone().unwrap_or_default())
}
