//! How many requests a caller may make: one script, one round trip, exact over all replicas.

use std::sync::Arc;
use std::time::Duration;

use chassis::redis::Redis;
use contracts::RequestId;
use identity::{Actor, Principal};
use redis::Script;
use tracing::Instrument;

use crate::config::LimitsConfig;
use crate::error::ApiError;

/// Counts requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    redis: Redis,
    script: Arc<Script>,
    limit: u32,
    window: Duration,
}

impl RateLimiter {
    /// A limiter on this Redis.
    #[must_use]
    pub fn new(redis: Redis, config: &LimitsConfig) -> Self {
        let script = Arc::new(Script::new(include_str!("../data/rate.lua")));
        Self { redis, script, limit: config.requests_per_window, window: config.window.0 }
    }

    /// Counts a request of the caller.
    ///
    /// # Errors
    /// [`ApiError::RateLimited`] with the time until there is room again; [`ApiError::Unavailable`] when Redis does not say.
    pub async fn admit(&self, principal: &Principal, request: RequestId) -> Result<(), ApiError> {
        // The key's own limit is per minute, which the window is unless an operator chose another.
        let limit = principal.requests_per_minute.map_or(self.limit, |own| own.min(self.limit));
        let window = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        let mut invocation = self.script.key(key(principal));
        invocation.arg(limit).arg(window).arg(request.to_string());
        let span = tracing::info_span!("admission", otel.kind = "client", otel.name = "EVALSHA rate", db.system.name = "redis");
        let wait: Result<u64, _> = invocation.invoke_async(&mut self.redis.connection()).instrument(span).await;
        match wait {
            Ok(0) => Ok(()),
            Ok(wait) => Err(ApiError::RateLimited(Duration::from_millis(wait))),
            Err(error) => {
                tracing::warn!(error.message = error.category(), "a request could not be counted");
                Err(ApiError::Unavailable("the request limit"))
            }
        }
    }
}

/// The organization is the hash tag: all keys of one organization live on one node of a cluster.
fn key(principal: &Principal) -> String {
    let organization = principal.organization_id;
    match principal.actor {
        Actor::ApiKey { api_key_id } => format!("trivet:rate:{{{organization}}}:{api_key_id}"),
        Actor::User { user_id, .. } => format!("trivet:rate:{{{organization}}}:{user_id}"),
    }
}
