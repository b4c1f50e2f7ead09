//! `/v1/webhook-deliveries`: what was to be told to whom, and what became of it.

use axum::extract::State;
use chassis::Problem;
use chassis::cursor::{CursorKey, Page};
use chassis::http::{Path, Query};
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use http::StatusCode;
use identity::{Authenticated, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Postgres, Transaction};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{DeliveryId, EndpointId};
use crate::error::Error;
use crate::state::AppState;

const PAGE: usize = 100;
/// Messages that wait for one endpoint at most: what is written beyond them is listed as failed, and can be replayed.
const MOST_WAITING: i64 = 1_000;

/// One message to one endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// Its id.
    id: DeliveryId,
    /// Where it goes.
    endpoint_id: EndpointId,
    /// The header `webhook-id`, the same for each attempt.
    message_id: String,
    /// What happened.
    kind: String,
    /// What is sent, as JSON.
    #[schema(value_type = Object)]
    payload: Value,
    /// `waiting`, `delivered` or `failed`.
    state: String,
    /// How often it was tried.
    attempts: i32,
    /// What the last attempt was answered with, if it was.
    last_status: Option<i32>,
    /// Why the last attempt failed.
    last_error: Option<String>,
    /// When it was written.
    created_at: DateTime<Utc>,
    /// When it arrived.
    delivered_at: Option<DateTime<Utc>>,
}

/// Where a list goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Writes a message to every endpoint of an organization, in the transaction of the fact.
///
/// # Errors
/// The database's.
pub async fn enqueue(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    message_id: &str,
    kind: &str,
    payload: &Value,
) -> Result<(), Error> {
    let endpoints =
        sqlx::query_scalar!("select id from webhook_endpoints where organization_id = $1 and deleted_at is null", organization.uuid())
            .fetch_all(&mut **transaction)
            .await?;
    let ids: Vec<Uuid> = endpoints.iter().map(|_| state.random.uuid_v7(&state.clock)).collect();
    let states = sqlx::query_scalar!(
        "insert into webhook_deliveries (id, endpoint_id, organization_id, message_id, kind, payload, state, last_error, next_attempt_at, created_at)
         select id, endpoint, $3, $4, $5, $6, case when is_full then 'failed' else 'waiting' end,
           case when is_full then 'too many messages wait for the endpoint' end,
           greatest($7, (select rests_until from webhook_endpoints e where e.id = endpoint)), $7
         from unnest($1::uuid[], $2::uuid[]) as told (id, endpoint) cross join lateral (select count(*) >= $8 as is_full from (
           select from webhook_deliveries where endpoint_id = endpoint and state = 'waiting' limit $8) waiting) w
         on conflict on constraint webhook_deliveries_once do nothing returning state",
        &ids,
        &endpoints,
        organization.uuid(),
        message_id,
        kind,
        payload.to_string(),
        state.clock.now(),
        MOST_WAITING
    );
    let failed = states.fetch_all(&mut **transaction).await?.iter().filter(|state| *state == "failed").count();
    if failed > 0 {
        metrics::counter!("webhook_deliveries_failed_total").increment(u64::try_from(failed).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// What was to be told, newest first.
#[utoipa::path(get, path = "/v1/webhook-deliveries", tag = "webhooks", params(ListQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<Delivery>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<Delivery>>, Error> {
    principal.require(Scope::BillingRead)?;
    let cursors = CursorKey::derive(&state.config.secret, "webhook deliveries");
    let after: Option<(DateTime<Utc>, Uuid)> = query.cursor.map(|cursor| cursors.decode(&cursor)).transpose()?;
    let rows = rows(&state, principal.organization_id, after).await?;
    Ok(axum::Json(cursors.page(rows, PAGE, |last| (last.created_at, last.id.uuid()))))
}

async fn rows(state: &AppState, organization: OrganizationId, after: Option<(DateTime<Utc>, Uuid)>) -> Result<Vec<Delivery>, Error> {
    let (after_time, after_id) = after.unzip();
    let rows = sqlx::query!(
        "select id, endpoint_id, message_id, kind, payload, state, attempts, last_status, last_error, created_at, delivered_at from webhook_deliveries
         where organization_id = $1 and ($2::timestamptz is null or (created_at, id) < ($2, $3)) order by created_at desc, id desc limit $4",
        organization.uuid(),
        after_time,
        after_id,
        i64::try_from(PAGE + 1).unwrap_or(i64::MAX)
    )
    .fetch_all(&state.pool)
    .await?;
    let rows = rows.into_iter().map(|row| {
        Ok(Delivery {
            id: DeliveryId::from_uuid(row.id),
            endpoint_id: EndpointId::from_uuid(row.endpoint_id),
            message_id: row.message_id,
            kind: row.kind,
            payload: serde_json::from_str(&row.payload).map_err(|_| Error::Internal("a message is not JSON"))?,
            state: row.state,
            attempts: row.attempts,
            last_status: row.last_status,
            last_error: row.last_error,
            created_at: row.created_at,
            delivered_at: row.delivered_at,
        })
    });
    rows.collect()
}

/// Send it again, with the same id: a receiver that has it knows it.
#[utoipa::path(post, path = "/v1/webhook-deliveries/{id}/replay", tag = "webhooks", security(("bearer" = [])),
    params(("id" = DeliveryId, Path, description = "The delivery")),
    responses((status = 202), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, body = ProblemBody, description = "As many messages wait for the endpoint as may")))]
pub async fn replay(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Path(id): Path<DeliveryId>,
) -> Result<StatusCode, Error> {
    principal.require(Scope::BillingWrite)?;
    let replayed = sqlx::query!(
        "update webhook_deliveries d set state = 'waiting', attempts = 0, next_attempt_at = $3, replayed_at = $3, delivered_at = null
         from webhook_endpoints e where d.organization_id = $1 and d.id = $2 and e.id = d.endpoint_id and e.deleted_at is null
           and (d.state = 'waiting' or (select count(*) from (
             select from webhook_deliveries w where w.endpoint_id = e.id and w.state = 'waiting' limit $4) waiting) < $4)",
        principal.organization_id.uuid(),
        id.uuid(),
        state.clock.now(),
        MOST_WAITING
    );
    if replayed.execute(&state.pool).await?.rows_affected() == 1 {
        return Ok(StatusCode::ACCEPTED);
    }
    let known = sqlx::query_scalar!(
        r#"select exists (select from webhook_deliveries d join webhook_endpoints e on e.id = d.endpoint_id
             where d.organization_id = $1 and d.id = $2 and e.deleted_at is null) as "known!""#,
        principal.organization_id.uuid(),
        id.uuid()
    );
    if !known.fetch_one(&state.pool).await? {
        return Err(Error::NotFound);
    }
    Err(Problem::conflict("too_many_waiting", "As many messages wait for the endpoint as may").into())
}
