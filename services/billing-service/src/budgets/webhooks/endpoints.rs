//! `/v1/webhook-endpoints`.

use axum::extract::State;
use chassis::http::{Json, Path};
use chassis::problem::ProblemBody;
use chassis::{ExposeSecret, Problem, in_transaction};
use chrono::{DateTime, Utc};
use http::StatusCode;
use identity::{Authenticated, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use sqlx::{Postgres, Transaction};
use utoipa::ToSchema;

use super::{EndpointId, guard, signature};
use crate::error::Error;
use crate::state::AppState;

/// Endpoints of an organization at most.
const MOST: i64 = 20;

/// Where messages are to go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEndpoint {
    /// An https URL on the public internet.
    #[schema(max_length = 2000)]
    url: String,
}

/// Where messages go.
#[derive(Debug, Serialize, ToSchema)]
pub struct Endpoint {
    /// Its id.
    id: EndpointId,
    /// The URL.
    url: String,
    /// When it was registered.
    created_at: DateTime<Utc>,
}

/// A new endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointCreated {
    /// What its messages are signed with (Standard Webhooks); shown this once.
    secret: String,
    /// What is listed of it.
    #[serde(flatten)]
    listed: Endpoint,
}

/// Endpoints.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointList {
    /// Oldest first.
    data: Vec<Endpoint>,
}

/// Where the organization's messages go.
#[utoipa::path(get, path = "/v1/webhook-endpoints", tag = "webhooks", security(("bearer" = [])),
    responses((status = 200, body = EndpointList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(State(state): State<AppState>, Authenticated(principal): Authenticated) -> Result<axum::Json<EndpointList>, Error> {
    principal.require(Scope::BillingRead)?;
    let rows = sqlx::query!(
        "select id, url, created_at from webhook_endpoints where organization_id = $1 and deleted_at is null order by created_at, id",
        principal.organization_id.uuid()
    );
    let rows = rows.fetch_all(&state.pool).await?.into_iter();
    let data = rows.map(|row| Endpoint { id: EndpointId::from_uuid(row.id), url: row.url, created_at: row.created_at });
    Ok(axum::Json(EndpointList { data: data.collect() }))
}

/// Register where messages go. Registered twice, it is there once.
#[utoipa::path(post, path = "/v1/webhook-endpoints", tag = "webhooks", request_body = NewEndpoint, security(("bearer" = [])),
    responses((status = 201, body = EndpointCreated), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Json(new): Json<NewEndpoint>,
) -> Result<(StatusCode, axum::Json<EndpointCreated>), Error> {
    principal.require(Scope::BillingWrite)?;
    guard::parse(&new.url, state.config.webhooks_to_private).map_err(|refused| Problem::invalid_field("url", refused.to_string()))?;
    let listed = in_transaction!(state.pool, |transaction| {
        // One registration of an organization at a time, so that neither the limit nor a second of the same is passed.
        sqlx::query!("select pg_advisory_xact_lock(hashtextextended('webhook ' || $1, 0))", principal.organization_id.to_string())
            .execute(&mut **transaction)
            .await?;
        register(&state, transaction, principal.organization_id, &new.url).await
    })?;
    let secret = signature::secret(&state.config.secret, listed.id)?.expose_secret().to_owned();
    Ok((StatusCode::CREATED, axum::Json(EndpointCreated { secret, listed })))
}

async fn register(
    state: &AppState,
    transaction: &mut sqlx::Transaction<'static, sqlx::Postgres>,
    organization: identity::OrganizationId,
    url: &str,
) -> Result<Endpoint, Error> {
    let rows = sqlx::query!(
        "select id, url, created_at from webhook_endpoints where organization_id = $1 and deleted_at is null",
        organization.uuid()
    )
    .fetch_all(&mut **transaction)
    .await?;
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    if let Some(row) = rows.into_iter().find(|row| row.url == url) {
        return Ok(Endpoint { id: EndpointId::from_uuid(row.id), url: row.url, created_at: row.created_at });
    }
    if count >= MOST {
        return Err(Problem::conflict("too_many_endpoints", "There are as many endpoints as an organization may have").into());
    }
    let endpoint = Endpoint { id: EndpointId::new(&state.clock, &state.random), url: url.to_owned(), created_at: state.clock.now() };
    sqlx::query!(
        "insert into webhook_endpoints (id, organization_id, url, created_at) values ($1, $2, $3, $4)",
        endpoint.id.uuid(),
        organization.uuid(),
        url,
        endpoint.created_at
    )
    .execute(&mut **transaction)
    .await?;
    Ok(endpoint)
}

/// Send nothing there any more.
#[utoipa::path(delete, path = "/v1/webhook-endpoints/{id}", tag = "webhooks", security(("bearer" = [])),
    params(("id" = EndpointId, Path, description = "The endpoint")),
    responses((status = 204), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody)))]
pub async fn delete(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Path(id): Path<EndpointId>,
) -> Result<StatusCode, Error> {
    principal.require(Scope::BillingWrite)?;
    in_transaction!(state.pool, |transaction| { end(&state, transaction, principal.organization_id, id).await })
}

/// The endpoint is gone, and what waited for it is not sent any more.
async fn end(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: EndpointId,
) -> Result<StatusCode, Error> {
    let deleted = sqlx::query!(
        "update webhook_endpoints set deleted_at = $3 where organization_id = $1 and id = $2 and deleted_at is null",
        organization.uuid(),
        id.uuid(),
        state.clock.now()
    );
    if deleted.execute(&mut **transaction).await?.rows_affected() == 0 {
        return Err(Error::NotFound);
    }
    sqlx::query!(
        "update webhook_deliveries set state = 'failed', last_error = 'the endpoint was deleted' where endpoint_id = $1 and state = 'waiting'",
        id.uuid()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
