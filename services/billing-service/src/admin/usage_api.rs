//! `/v1/admin/usage/…`: usage of all organizations, as `billing-service usage` has it.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::http::{Json, Query};
use chrono::{DateTime, Utc};
use http::{HeaderMap, header};
use identity::{CallingService, OrganizationId};
use serde::Deserialize;
use serde_json::json;

use super::api::{Reason, SCOPE_READ, decision, later};
use crate::error::{Error, check_instants};
use crate::rollups;
use crate::state::AppState;
use crate::usage::{Format, chunks};

/// Makes the rollups anew. The answer begins at once, as that of the ledger's verification.
pub async fn rebuild(
    State(state): State<AppState>,
    caller: CallingService,
    headers: HeaderMap,
    Json(by): Json<Reason>,
) -> Result<Response, Error> {
    let decision = decision(&state, &caller, &headers, by)?;
    Ok(later(async move { rollups::rebuild(&state, &decision).await.map(|()| json!({"rebuilt": true})) }))
}

/// Compares the rollups with the rows. The answer begins at once.
pub async fn verify(State(state): State<AppState>, caller: CallingService) -> Result<Response, Error> {
    caller.require(SCOPE_READ)?;
    Ok(later(async move {
        let differences = rollups::differences(&state.pool).await?;
        Ok(json!({"clean": differences.is_empty(), "differences": differences}))
    }))
}

/// Which rows, and how.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    format: Format,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    organization_id: Option<OrganizationId>,
}

/// Every row of a time, oldest first: of all organizations with our cost, or of one as it sees them.
pub async fn export(State(state): State<AppState>, caller: CallingService, Query(rows): Query<Rows>) -> Result<Response, Error> {
    caller.require(SCOPE_READ)?;
    check_instants(&[rows.from, rows.to])?;
    let chunks = chunks(state.pool.clone(), rows.organization_id, rows.from, rows.to, rows.format);
    Ok(([(header::CONTENT_TYPE, rows.format.content_type())], Body::from_stream(chunks)).into_response())
}
