//! The SQL of API keys; every statement is scoped by organization [I-73].

use chassis::cursor::{CursorKey, Page};
use chassis::outbox::{self, NewEvent};
use chrono::{DateTime, Utc};
use contracts::events::ApiKeyRevoked;
use identity::{ApiKeyId, ApiKeySecret, OrganizationId, Principal, Scopes, UserId};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::ApiKey;
use crate::error::Error;
use crate::state::AppState;

const PAGE: usize = 50;

/// Stores a key; only its digest.
pub async fn insert(
    transaction: &mut Transaction<'static, Postgres>,
    principal: &Principal,
    key: &ApiKey,
    secret: &ApiKeySecret,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into api_keys (id, organization_id, created_by, name, key_sha256, prefix, last_four, scopes, requests_per_minute, expires_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        key.id.uuid(),
        principal.organization_id.uuid(),
        principal.user_id().map(UserId::uuid),
        key.name,
        secret.sha256(),
        key.prefix,
        key.last_four,
        &key.scopes.to_strings(),
        key.requests_per_minute.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)),
        key.expires_at,
        key.created_at
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// A page of the organization's keys, after a position.
pub async fn page(
    pool: &PgPool,
    cursors: &CursorKey,
    organization: OrganizationId,
    after: Option<(DateTime<Utc>, Uuid)>,
) -> Result<Page<ApiKey>, Error> {
    let (after_time, after_id) = after.unzip();
    let rows = sqlx::query!(
        "select id, name, prefix, last_four, scopes, requests_per_minute, created_at, expires_at, last_used_at from api_keys
         where organization_id = $1 and revoked_at is null and ($2::timestamptz is null or (created_at, id) < ($2, $3))
         order by created_at desc, id desc limit $4",
        organization.uuid(),
        after_time,
        after_id,
        i64::try_from(PAGE + 1).unwrap_or(i64::MAX)
    )
    .fetch_all(pool)
    .await?;
    let next_cursor = (rows.len() > PAGE).then(|| cursors.encode(&(rows[PAGE - 1].created_at, rows[PAGE - 1].id)));
    let data = rows.into_iter().take(PAGE).map(|row| ApiKey {
        id: ApiKeyId::from_uuid(row.id),
        name: row.name,
        prefix: row.prefix,
        last_four: row.last_four,
        scopes: Scopes::known(row.scopes.iter().map(String::as_str)),
        requests_per_minute: row.requests_per_minute.and_then(|limit| u32::try_from(limit).ok()),
        created_at: row.created_at,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
    });
    Ok(Page { data: data.collect(), next_cursor })
}

/// Revokes a key and tells everybody who remembers it.
pub async fn revoke(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: ApiKeyId,
) -> Result<(), Error> {
    let now = state.clock.now();
    let revoked = sqlx::query!(
        "update api_keys set revoked_at = $3 where id = $1 and organization_id = $2 and revoked_at is null",
        id.uuid(),
        organization.uuid(),
        now
    )
    .execute(&mut **transaction)
    .await?;
    if revoked.rows_affected() == 0 {
        return Err(Error::NotFound);
    }
    let event = NewEvent {
        id: state.random.uuid_v7(&state.clock),
        kind: ApiKeyRevoked::KIND,
        organization_id: Some(organization.uuid()),
        payload: serde_json::to_value(ApiKeyRevoked { api_key_id: id, organization_id: organization })
            .map_err(|_| Error::Internal("an event could not be written"))?,
        occurred_at: now,
    };
    outbox::enqueue(transaction, &event).await?;
    Ok(())
}
