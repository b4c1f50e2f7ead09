//! Whether a session still counts: what an access token itself cannot say.

use async_trait::async_trait;

use crate::api_key::LookupUnavailable;
use crate::ids::{SessionId, UserId};

/// Knows which sessions have ended.
#[async_trait]
pub trait SessionCheck: Send + Sync {
    /// Whether access tokens of this session of this user are still to be accepted.
    ///
    /// # Errors
    /// When it cannot be known right now.
    async fn is_open(&self, session: SessionId, user: UserId) -> Result<bool, LookupUnavailable>;
}
