//! `GET /v1/entitlements` and `GET /internal/v1/entitlements/{organization}`.

use axum::extract::State;
use chassis::http::Path;
use chassis::problem::ProblemBody;
use contracts::entitlements::{Entitlements, SCOPE_ENTITLEMENTS_READ};
use identity::{Authenticated, CallingService, OrganizationId, Scope};

use super::read;
use crate::budgets::counted;
use crate::error::Error;
use crate::state::AppState;

/// What the organization may do.
#[utoipa::path(get, path = "/v1/entitlements", tag = "subscriptions", security(("bearer" = [])),
    responses((status = 200, body = Entitlements), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn get(State(state): State<AppState>, Authenticated(principal): Authenticated) -> Result<axum::Json<Entitlements>, Error> {
    principal.require(Scope::BillingRead)?;
    let mut connection = state.pool.acquire().await?;
    Ok(axum::Json(read(&mut connection, principal.organization_id).await?))
}

/// What an organization may do, for a service, with what was spent of its limits.
pub async fn internal(
    State(state): State<AppState>,
    caller: CallingService,
    Path(organization): Path<OrganizationId>,
) -> Result<axum::Json<Entitlements>, Error> {
    caller.require(SCOPE_ENTITLEMENTS_READ)?;
    let mut connection = state.pool.acquire().await?;
    let mut entitlements = read(&mut connection, organization).await?;
    counted::fill(&mut connection, organization, &mut entitlements.spend_limits, state.clock.now()).await?;
    Ok(axum::Json(entitlements))
}
