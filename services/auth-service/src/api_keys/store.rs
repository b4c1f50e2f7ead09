//! The SQL of API keys; every statement is scoped by organization [I-73].

use chassis::Problem;
use chassis::cursor::{CursorKey, Page};
use chassis::outbox::{self, NewEvent};
use chassis::postgres::constraint;
use chrono::{DateTime, Utc};
use contracts::events::ApiKeyRevoked;
use identity::{ApiKeyId, ApiKeySecret, OrganizationId, Principal, Scopes, UserId};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::ApiKey;
use crate::error::Error;
use crate::state::AppState;

const PAGE: usize = 50;
/// Keys of an organization that may live at once.
const MOST_OF_ORGANIZATION: i64 = 1_000;
/// Keys made with one key that may live at once.
const MOST_OF_MAKER: i64 = 50;

/// What limits the keys that a key makes; nothing, if it is no key that makes them.
#[derive(Debug, Default)]
pub struct Maker {
    /// They end no later than this.
    pub expires_at: Option<DateTime<Utc>>,
    /// They are as limited as this.
    pub requests_per_minute: Option<u32>,
}

/// The key that is making another. It is locked, so that its revocation comes before (then nothing is made) or after (then it finds
/// what was made).
pub async fn maker(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId, id: ApiKeyId) -> Result<Maker, Error> {
    let row = sqlx::query!(
        "select expires_at, requests_per_minute from api_keys where id = $1 and organization_id = $2 and revoked_at is null for share",
        id.uuid(),
        organization.uuid()
    )
    .fetch_optional(&mut **transaction)
    .await?
    .ok_or_else(Problem::unauthorized)?;
    Ok(Maker { expires_at: row.expires_at, requests_per_minute: row.requests_per_minute.and_then(|limit| u32::try_from(limit).ok()) })
}

/// Makes sure that one more key may live; what was revoked or has ended does not count. Keys of an organization are made one after the
/// other, from here to the end of the transaction: two that count at once would both take the last place.
///
/// # Errors
/// [`Error::TooManyApiKeys`]; the database's.
pub async fn room(transaction: &mut Transaction<'static, Postgres>, principal: &Principal, now: DateTime<Utc>) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('api_keys ' || $1, 0))", principal.organization_id.to_string())
        .execute(&mut **transaction)
        .await?;
    let living = sqlx::query!(
        r#"select count(*) as "of_organization!", count(*) filter (where created_by_key = $2) as "of_maker!" from api_keys
           where organization_id = $1 and revoked_at is null and coalesce(expires_at, 'infinity') > $3"#,
        principal.organization_id.uuid(),
        principal.api_key_id().map(ApiKeyId::uuid),
        now
    )
    .fetch_one(&mut **transaction)
    .await?;
    if living.of_organization >= MOST_OF_ORGANIZATION {
        return Err(Error::TooManyApiKeys("an organization", MOST_OF_ORGANIZATION));
    }
    if living.of_maker >= MOST_OF_MAKER {
        return Err(Error::TooManyApiKeys("a key that makes keys", MOST_OF_MAKER));
    }
    Ok(())
}

/// Stores a key; only its digest.
pub async fn insert(
    transaction: &mut Transaction<'static, Postgres>,
    principal: &Principal,
    key: &ApiKey,
    secret: &ApiKeySecret,
) -> Result<(), Error> {
    let inserted = sqlx::query!(
        "insert into api_keys (id, organization_id, created_by, created_by_key, name, key_sha256, prefix, last_four, scopes,
                               requests_per_minute, expires_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        key.id.uuid(),
        principal.organization_id.uuid(),
        principal.user_id().map(UserId::uuid),
        principal.api_key_id().map(ApiKeyId::uuid),
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
    .await;
    match inserted {
        // Under an Idempotency-Key the secret is derived from the call: this one was made before its answer was forgotten.
        Err(error) if constraint(&error) == Some("api_keys_key_sha256_key") => Err(Error::IdempotencyKeyReused),
        inserted => Ok(inserted.map(drop)?),
    }
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

/// Revokes a key and everything that was made with it, and tells everybody who remembers them.
pub async fn revoke(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: ApiKeyId,
) -> Result<(), Error> {
    let now = state.clock.now();
    let mut revoked = descendants(transaction, organization, id, now).await?;
    if !revoked.contains(&id.uuid()) {
        return Err(Error::NotFound);
    }
    // Again until nothing is left: while this one waited for a key that was just making another, that other was not to be seen.
    while !revoked.is_empty() {
        for id in revoked {
            tell(state, transaction, organization, ApiKeyId::from_uuid(id)).await?;
        }
        revoked = descendants(transaction, organization, id, now).await?;
    }
    Ok(())
}

/// Revokes a key and what was made with it, as far as it is to be seen; gives what was not revoked before.
async fn descendants(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: ApiKeyId,
    now: DateTime<Utc>,
) -> Result<Vec<Uuid>, Error> {
    let revoked = sqlx::query_scalar!(
        "with recursive family (id) as (
             select id from api_keys where id = $1 and organization_id = $2
             union
             select k.id from api_keys k join family f on k.created_by_key = f.id
         )
         update api_keys k set revoked_at = $3 from family f where k.id = f.id and k.revoked_at is null returning k.id",
        id.uuid(),
        organization.uuid(),
        now
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(revoked)
}

async fn tell(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: ApiKeyId,
) -> Result<(), Error> {
    let event = NewEvent {
        id: state.random.uuid_v7(&state.clock),
        kind: ApiKeyRevoked::KIND,
        organization_id: Some(organization.uuid()),
        payload: serde_json::to_value(ApiKeyRevoked { api_key_id: id, organization_id: organization })
            .map_err(|_| Error::Internal("an event could not be written"))?,
        occurred_at: state.clock.now(),
    };
    outbox::enqueue(transaction, &event).await?;
    Ok(())
}
