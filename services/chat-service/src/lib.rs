//! chat-service: an OpenAI-shaped gateway in which every call is recognized, limited, paid for before it is made, and settled
//! exactly once, whichever way it ends.

pub mod admin;
pub mod body;
mod budget;
pub mod caller;
pub mod completions;
pub mod config;
pub mod entitlements;
pub mod error;
pub mod genai;
mod limits;
pub mod meters;
pub mod models;
mod prices;
pub mod provider;
pub mod router;
pub mod settlement;
pub mod state;

use std::net::SocketAddr;
use std::time::Duration;

use chassis::cli::{ServiceProgram, Task};
use chassis::host::Host;
use chassis::http::HttpConfig;
use chassis::redis::Redis;
use chassis::telemetry::TelemetryConfig;
use chassis::{Clock, Random};
use tokio_util::sync::CancellationToken;

use crate::config::ChatConfig;
use crate::state::AppState;

/// The edge gives up later than we do, so that the answer is ours, in `OpenAI`'s shape.
const EDGE_MARGIN: Duration = Duration::from_secs(10);

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
    pub async fn build(mut config: ChatConfig, clock: Clock, random: Random) -> anyhow::Result<Self> {
        config.http.timeout.0 = config.http.timeout.0.max(config.provider.deadline.0 + EDGE_MARGIN);
        config.http.body_limit = config.limits.body_limit;
        let mut host = Host::bind(&config.http).await?;
        host.render_refusals(error::of_the_edge);
        let redis = Redis::connect(&config.redis)?;
        redis.watch(&host.readiness());
        let state = AppState::new(&config, redis, &host, clock, random)?;
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

    /// Serves until the token is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        let public = router::public_router(self.state);
        self.host.run(public, axum::Router::new(), shutdown).await;
    }
}

/// The command line of the service.
#[derive(Debug)]
pub struct Program;

impl ServiceProgram for Program {
    const NAME: &'static str = "chat-service";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = ChatConfig;
    type MigrateConfig = ChatConfig;
    type Commands = admin::Command;

    fn http(config: &ChatConfig) -> &HttpConfig {
        &config.http
    }

    fn telemetry(config: &ChatConfig) -> &TelemetryConfig {
        &config.telemetry
    }

    fn openapi() -> String {
        router::openapi()
    }

    fn serve(config: ChatConfig, shutdown: CancellationToken) -> Task {
        Box::pin(async move {
            Application::build(config, Clock::system(), Random::system()).await?.run(shutdown).await;
            Ok(())
        })
    }

    /// There is nothing to migrate: this service has no database.
    fn migrate(_config: ChatConfig) -> Task {
        Box::pin(async { Ok(()) })
    }

    fn operate(command: admin::Command, config: ChatConfig) -> Task {
        Box::pin(admin::run(command, config))
    }
}
