//! Runs a service: its two listeners, its background tasks, its health, and its orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::health::Readiness;
use crate::http::edge::Render;
use crate::http::{HttpConfig, edge, server};
use crate::telemetry;

/// How long background tasks get to end after the last request.
const TASK_GRACE: Duration = Duration::from_secs(10);

/// The listeners and tasks of one service.
#[derive(Debug)]
pub struct Host {
    config: HttpConfig,
    public: TcpListener,
    private: TcpListener,
    readiness: Readiness,
    tasks: TaskTracker,
    stop_tasks: CancellationToken,
    draining: CancellationToken,
    render: Render,
}

impl Host {
    /// Binds both listeners.
    ///
    /// # Errors
    /// When an address is taken.
    pub async fn bind(config: &HttpConfig) -> std::io::Result<Self> {
        Ok(Self {
            config: config.clone(),
            public: TcpListener::bind(config.bind).await?,
            private: TcpListener::bind(config.private_bind).await?,
            readiness: Readiness::default(),
            tasks: TaskTracker::new(),
            stop_tasks: CancellationToken::new(),
            draining: CancellationToken::new(),
            render: edge::as_problem,
        })
    }

    /// Tells the public edge's own refusals in another shape than problem details.
    pub const fn render_refusals(&mut self, render: Render) {
        self.render = render;
    }

    /// Where the public listener is.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn public_addr(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Where the private listener is.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn private_addr(&self) -> std::io::Result<SocketAddr> {
        self.private.local_addr()
    }

    /// The checks of `/ready`.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Cancelled when the service begins to drain, so that long streams can come to their end.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// The set of tasks that are waited for at the end; for work that outlives its request.
    #[must_use]
    pub fn tasks(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// Starts a background task. It ends when its token is cancelled, which happens after the last request; an earlier end
    /// makes the service not ready.
    pub fn spawn<F, Fut>(&self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (stop, readiness) = (self.stop_tasks.clone(), self.readiness.clone());
        let running = task(stop.clone());
        self.tasks.spawn(async move {
            // A panic ends in the same place as a return: this code runs when the inner task is over.
            let ended = tokio::spawn(running).await;
            if !stop.is_cancelled() {
                tracing::error!(task.name = name, panicked = ended.is_err(), "a background task ended although the service runs");
                readiness.register(name, || async { Err("ended unexpectedly".to_owned()) });
            }
        });
    }

    /// Serves until `shutdown` is cancelled, then drains: not ready, no new connections, requests in flight up to the grace,
    /// then the background tasks.
    pub async fn run(self, public: Router, private: Router, shutdown: CancellationToken) {
        let health = self.readiness.router();
        let public = edge::wrap(public.merge(health.clone()), &self.config, self.render);
        let private = private.merge(health).route("/metrics", get(|| async { telemetry::render_metrics() }));
        let private = edge::wrap(private, &self.config, edge::as_problem);
        self.spawn("metrics-upkeep", telemetry::keep_metrics);
        let (config, grace) = (self.config.clone(), self.config.shutdown_grace.0);
        let (readiness, draining) = (self.readiness.clone(), self.draining.clone());
        let stop = shutdown.clone();
        let announce = async move {
            stop.cancelled().await;
            readiness.drain();
            draining.cancel();
        };
        let private_stop = CancellationToken::new();
        let (listener, stopped) = (self.private, private_stop.clone());
        let private_server = tokio::spawn(async move { server::serve(listener, private, &config, Duration::from_secs(1), stopped).await });
        tracing::info!("serving");
        tokio::join!(announce, server::serve(self.public, public, &self.config, grace, shutdown));
        self.stop_tasks.cancel();
        self.tasks.close();
        if tokio::time::timeout(TASK_GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("background tasks did not end in time");
        }
        // The private listener goes last: an orchestrator may watch the drain through it.
        private_stop.cancel();
        let _ = private_server.await;
        tracing::info!("stopped");
    }
}
