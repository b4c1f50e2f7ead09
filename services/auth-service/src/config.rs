//! What auth-service reads from its environment.

use chassis::SecretString;
use chassis::http::HttpConfig;
use chassis::postgres::PostgresConfig;
use chassis::redis::RedisConfig;
use chassis::telemetry::TelemetryConfig;
use identity::IdentityConfig;

chassis::settings! {
    /// Everything auth-service needs to serve.
    pub struct AuthConfig {
        /// Listeners and limits.
        pub http: HttpConfig = nested,
        /// Logs, traces, metrics.
        pub telemetry: TelemetryConfig = nested,
        /// The database.
        pub postgres: PostgresConfig = nested,
        /// Redis.
        pub redis: RedisConfig = nested,
        /// Issuer and audience of tokens.
        pub identity: IdentityConfig = nested,
        /// The root key, base64 of at least 32 random bytes: encryption keys and the password pepper are derived from it.
        pub secret: SecretString = required "AUTH_SECRET",
        /// Public keys of the services that may call private routes: a JSON Web Key Set whose `kid` is the service's name.
        pub service_jwks: String = required "AUTH_SERVICE_JWKS",
        /// The environment written into new API keys (`tvk_<environment>_…`), lower-case letters.
        pub key_environment: String = default "AUTH_KEY_ENVIRONMENT" "live",
        /// Passwords hashed at once; each takes 19 MiB. One more is answered 503.
        pub hash_concurrency: usize = default "AUTH_HASH_CONCURRENCY" "4",
    }
}

chassis::settings! {
    /// Everything the migrations need.
    pub struct MigrateConfig {
        /// The database, as the role that owns the schema.
        pub postgres: PostgresConfig = nested,
    }
}
