//! Whether a session still counts, read from the database: here a logout counts at once, whether or not Redis is there.

use async_trait::async_trait;
use chassis::Clock;
use identity::{LookupUnavailable, SessionCheck, SessionId, UserId};
use sqlx::PgPool;

/// Look-ups in this service's own database; cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalSessions {
    pool: PgPool,
    clock: Clock,
}

impl LocalSessions {
    /// Look-ups over this pool.
    #[must_use]
    pub const fn new(pool: PgPool, clock: Clock) -> Self {
        Self { pool, clock }
    }
}

#[async_trait]
impl SessionCheck for LocalSessions {
    async fn is_open(&self, session: SessionId, user: UserId) -> Result<bool, LookupUnavailable> {
        let open = sqlx::query_scalar!(
            r#"select exists (select from sessions s join users u on u.id = s.user_id
               where s.id = $1 and s.user_id = $2 and s.revoked_at is null and s.expires_at > $3 and u.disabled_at is null) as "open!""#,
            session.uuid(),
            user.uuid(),
            self.clock.now()
        )
        .fetch_one(&self.pool)
        .await;
        open.map_err(|error| {
            tracing::warn!(error.message = %error, "a session could not be looked up");
            LookupUnavailable
        })
    }
}
