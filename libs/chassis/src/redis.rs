//! Redis: one multiplexed connection that finds its way back by itself, with short time limits so that a hanging server
//! becomes an answer (503) and not a queue.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{ErrorKind, IntoConnectionInfo, RedisError};
use secrecy::{ExposeSecret, SecretString};

use crate::config::Millis;
use crate::health::Readiness;

crate::settings! {
    /// The Redis server that the services share.
    pub struct RedisConfig {
        /// `redis://host:6379/0`, without the password.
        pub url: String = required "TRIVET_REDIS_URL",
        /// Password of the default user.
        pub password: Option<SecretString> = optional "TRIVET_REDIS_PASSWORD",
        /// Milliseconds to wait for an answer.
        pub timeout: Millis = default "TRIVET_REDIS_TIMEOUT_MS" "500",
    }
}

/// A connection to Redis; cheap to clone.
#[derive(Clone)]
pub struct Redis {
    manager: ConnectionManager,
    client: redis::Client,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}

impl Redis {
    /// A connection that is made when it is first used.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn connect(config: &RedisConfig) -> Result<Self, RedisError> {
        let mut info = config.url.as_str().into_connection_info()?;
        if let Some(password) = &config.password {
            let settings = info.redis_settings().clone().set_password(password.expose_secret());
            info = info.set_redis_settings(settings);
        }
        let client = redis::Client::open(info)?;
        let limits = ConnectionManagerConfig::new()
            .set_response_timeout(Some(config.timeout.0))
            .set_connection_timeout(Some(config.timeout.0))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(200));
        Ok(Self { manager: ConnectionManager::new_lazy_with_config(client.clone(), limits)?, client })
    }

    /// The shared connection, for commands that answer at once.
    #[must_use]
    pub fn connection(&self) -> ConnectionManager {
        self.manager.clone()
    }

    /// A connection of its own, for commands that block (`XREAD BLOCK`), which would hold up everybody on the shared one.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn blocking_connection(&self, longest_block: Duration) -> Result<redis::aio::MultiplexedConnection, RedisError> {
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(longest_block + Duration::from_secs(1)));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Makes `/ready` depend on Redis.
    pub fn watch(&self, readiness: &Readiness) {
        let redis = self.clone();
        readiness.register("redis", move || {
            let mut connection = redis.connection();
            async move { redis::cmd("PING").query_async::<String>(&mut connection).await.map(drop).map_err(|error| reason(&error)) }
        });
    }
}

/// The kind of an error, without addresses.
fn reason(error: &RedisError) -> String {
    format!("not available ({})", error.category())
}

/// Whether Redis is away, loading or too slow right now, so that trying later makes sense: 503, not 500.
#[must_use]
pub fn is_unavailable(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || matches!(error.kind(), ErrorKind::Io)
        || matches!(error.code(), Some("LOADING" | "OOM" | "MISCONF" | "BUSY" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN"))
}
