//! What a key is, read from the database; and when keys were last used, written together every few seconds and never while
//! somebody waits [I-71].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chassis::Clock;
use chassis::postgres::keep_running;
use chrono::{DateTime, Utc};
use identity::{ApiKeyId, ApiKeyLookup, LookupUnavailable, OrganizationId, PresentedKey, Scopes, VerifiedApiKey};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const FLUSH: Duration = Duration::from_secs(5);

/// Look-ups in this service's own database; cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalLookup {
    pool: PgPool,
    clock: Clock,
    used: Arc<Mutex<HashMap<Uuid, DateTime<Utc>>>>,
}

impl LocalLookup {
    /// Look-ups over this pool.
    #[must_use]
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        Self { pool, clock, used: Arc::default() }
    }

    /// The key with this digest, if it may be used now.
    ///
    /// # Errors
    /// The database's.
    pub async fn find(&self, key_sha256: &str) -> Result<Option<VerifiedApiKey>, sqlx::Error> {
        let now = self.clock.now();
        let row = sqlx::query!(
            "select id, organization_id, scopes, requests_per_minute, expires_at from api_keys
             where key_sha256 = $1 and revoked_at is null and (expires_at is null or expires_at > $2)",
            key_sha256,
            now
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(row.id, now);
        Ok(Some(VerifiedApiKey {
            api_key_id: ApiKeyId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            scopes: Scopes::known(row.scopes.iter().map(String::as_str)),
            expires_at: row.expires_at,
            requests_per_minute: row.requests_per_minute.and_then(|limit| u32::try_from(limit).ok()),
        }))
    }

    /// Writes what was used since the last time, in one statement.
    ///
    /// # Errors
    /// The database's; what could not be written is forgotten, it is a convenience.
    pub async fn flush(&self) -> Result<(), sqlx::Error> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return Ok(());
        }
        let (ids, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = used.into_iter().unzip();
        sqlx::query!(
            "update api_keys k set last_used_at = u.used_at from unnest($1::uuid[], $2::timestamptz[]) as u (id, used_at)
             where k.id = u.id and (k.last_used_at is null or k.last_used_at < u.used_at)",
            &ids,
            &times
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Flushes until the token is cancelled, and once more at the end.
    pub async fn flush_until(&self, stop: &CancellationToken) {
        keep_running("api-key-last-used", stop, FLUSH, || async { Ok(self.flush().await?) }).await;
        if let Err(error) = self.flush().await {
            tracing::warn!(error.message = %error, "the last uses of API keys were not written");
        }
    }
}

#[async_trait]
impl ApiKeyLookup for LocalLookup {
    async fn verify(&self, key: &PresentedKey) -> Result<Option<VerifiedApiKey>, LookupUnavailable> {
        self.find(key.sha256()).await.map_err(|error| {
            tracing::warn!(error.message = %error, "an API key could not be looked up");
            LookupUnavailable
        })
    }
}
