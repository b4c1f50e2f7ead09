//! `/v1/webhook-endpoints`.

use axum::extract::State;
use chassis::http::{Json, Path};
use chassis::problem::ProblemBody;
use chassis::{ExposeSecret, Problem, in_transaction};
use chrono::{DateTime, Utc};
use http::StatusCode;
use identity::{Authenticated, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Postgres, Transaction};
use utoipa::ToSchema;

use super::{EndpointId, guard, signature};
use crate::error::Error;
use crate::state::AppState;

/// Endpoints of an organization at most.
const MOST: usize = 20;

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
    /// Until when messages are signed with its former secret as well, while one secret takes the place of another.
    former_secret_until: Option<DateTime<Utc>>,
    /// Until when nothing is sent to it, because it failed again and again.
    rests_until: Option<DateTime<Utc>>,
    #[serde(skip)]
    secret_version: i32,
}

/// A new endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointCreated {
    /// What its messages are signed with (Standard Webhooks); no list shows it.
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
    let data = all(&state, &mut *state.pool.acquire().await?, principal.organization_id).await?;
    Ok(axum::Json(EndpointList { data }))
}

async fn all(state: &AppState, connection: &mut PgConnection, organization: OrganizationId) -> Result<Vec<Endpoint>, Error> {
    let rows = sqlx::query!(
        "select id, url, created_at, former_until, rests_until, secret_version from webhook_endpoints
         where organization_id = $1 and deleted_at is null order by created_at, id",
        organization.uuid()
    );
    let (rows, now) = (rows.fetch_all(connection).await?.into_iter(), state.clock.now());
    let endpoints = rows.map(|row| Endpoint {
        id: EndpointId::from_uuid(row.id),
        url: row.url,
        created_at: row.created_at,
        former_secret_until: row.former_until.filter(|until| *until > now),
        rests_until: row.rests_until.filter(|until| *until > now),
        secret_version: row.secret_version,
    });
    Ok(endpoints.collect())
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
    let secret = signature::secret(&state.config.secret, listed.id, listed.secret_version)?.expose_secret().to_owned();
    Ok((StatusCode::CREATED, axum::Json(EndpointCreated { secret, listed })))
}

async fn register(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    url: &str,
) -> Result<Endpoint, Error> {
    let mut endpoints = all(state, transaction, organization).await?;
    if let Some(known) = endpoints.iter().position(|endpoint| endpoint.url == url) {
        return Ok(endpoints.swap_remove(known));
    }
    if endpoints.len() >= MOST {
        return Err(Problem::conflict("too_many_endpoints", "There are as many endpoints as an organization may have").into());
    }
    let endpoint = Endpoint {
        id: EndpointId::new(&state.clock, &state.random),
        url: url.to_owned(),
        created_at: state.clock.now(),
        former_secret_until: None,
        rests_until: None,
        secret_version: 1,
    };
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
