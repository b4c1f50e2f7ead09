//! auth-service: accounts, organizations, sessions and API keys; the one place where credentials are made and checked.

pub mod accounts;
pub mod admin;
pub mod administrators;
pub mod api_keys;
pub mod audit;
pub mod config;
pub mod discovery;
pub mod error;
pub mod housekeeping;
pub mod internal;
pub mod me;
pub mod passwords;
pub mod router;
pub mod secrets;
pub mod service_grants;
pub mod sessions;
pub mod state;
pub mod tokens;

use std::net::SocketAddr;

use chassis::cli::{ServiceProgram, Task};
use chassis::host::Host;
use chassis::http::HttpConfig;
use chassis::outbox::Relay;
use chassis::postgres::{self, Migrations};
use chassis::redis::Redis;
use chassis::telemetry::TelemetryConfig;
use chassis::{Clock, Random};
use contracts::events::AUTH_STREAM;
use tokio_util::sync::CancellationToken;

use crate::config::{AuthConfig, MigrateConfig};
use crate::passwords::Hasher;
use crate::state::AppState;

/// This service's schema.
pub const MIGRATIONS: Migrations = Migrations {
    app_role: "auth_app",
    files: chassis::migrations![
        "0001_accounts",
        "0002_sessions",
        "0003_api_keys",
        "0004_keys_and_services",
        "0005_administrators",
        "0006_session_grants",
        "0007_keys_made_by_keys",
        "0008_retention",
        "0009_living_keys"
    ],
};

/// The service, built and bound, not yet serving.
#[derive(Debug)]
pub struct Application {
    host: Host,
    state: AppState,
}

impl Application {
    /// Builds the service; dependencies that are away do not stop it.
    ///
    /// # Errors
    /// When an address is taken or a setting is malformed.
    pub async fn build(config: AuthConfig, clock: Clock, random: Random) -> anyhow::Result<Self> {
        let host = Host::bind(&config.http).await?;
        let pool = postgres::connect(&config.postgres, Program::NAME)?;
        let redis = Redis::connect(&config.redis)?;
        postgres::watch(&host.readiness(), &pool, MIGRATIONS);
        redis.watch(&host.readiness());
        let relay = Relay::new(pool.clone(), redis, AUTH_STREAM, clock.clone());
        let state = AppState::new(&config, pool, relay, clock, random)?;
        state.spawn_tasks(&host);
        Ok(Self { host, state })
    }

    /// Where the public listener is.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn public_addr(&self) -> std::io::Result<SocketAddr> {
        self.host.public_addr()
    }

    /// Where the private listener is.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn private_addr(&self) -> std::io::Result<SocketAddr> {
        self.host.private_addr()
    }

    /// What hashes passwords, for tests that count its runs.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        self.state.hasher.clone()
    }

    /// Serves until the token is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        let (public, private) = router::routers(self.state);
        self.host.run(public, private, shutdown).await;
    }
}

/// The command line of the service.
#[derive(Debug)]
pub struct Program;

impl ServiceProgram for Program {
    const NAME: &'static str = "auth-service";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = AuthConfig;
    type MigrateConfig = MigrateConfig;
    type Commands = admin::Command;

    fn http(config: &AuthConfig) -> &HttpConfig {
        &config.http
    }

    fn telemetry(config: &AuthConfig) -> &TelemetryConfig {
        &config.telemetry
    }

    fn openapi() -> String {
        router::openapi()
    }

    fn serve(config: AuthConfig, shutdown: CancellationToken) -> Task {
        Box::pin(async move {
            Application::build(config, Clock::system(), Random::system()).await?.run(shutdown).await;
            Ok(())
        })
    }

    fn migrate(config: MigrateConfig) -> Task {
        Box::pin(async move {
            let mut connection = postgres::connect_patiently(&config.postgres, "auth-service migrate").await?;
            Ok(MIGRATIONS.apply(&mut connection).await?)
        })
    }

    fn operate(command: admin::Command, config: AuthConfig) -> Task {
        Box::pin(admin::run(command, config))
    }
}
