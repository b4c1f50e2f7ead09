//! `GET /health` (the process lives) and `GET /ready` (it can serve: dependencies and migrations are fine; false while
//! draining). Liveness never looks at a dependency: an outage must not restart processes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use futures::future::join_all;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// The checks that decide whether a service is ready; cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Default)]
struct Inner {
    checks: Mutex<Vec<(&'static str, Check)>>,
    draining: AtomicBool,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness").field("draining", &self.draining()).finish_non_exhaustive()
    }
}

/// The answer of `/ready`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    /// Whether the service takes requests.
    pub ready: bool,
    /// `ok`, or what is wrong, by dependency.
    pub checks: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Adds a check; its error is shown in the answer, so it must hold no secret.
    pub fn register<F, Fut>(&self, name: &'static str, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).push((name, check));
    }

    /// From now on the service is not ready.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    /// Whether the service is draining.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Runs all checks at once.
    pub async fn check(&self) -> Ready {
        let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let run = checks.into_iter().map(|(name, check)| async move {
            let outcome = match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
                Ok(Ok(())) => "ok".to_owned(),
                Ok(Err(error)) => error,
                Err(_) => "no answer in time".to_owned(),
            };
            (name, outcome)
        });
        let mut checks: BTreeMap<_, _> = join_all(run).await.into_iter().collect();
        if self.draining() {
            checks.insert("draining", "the service is stopping".to_owned());
        }
        Ready { ready: checks.values().all(|outcome| outcome == "ok"), checks }
    }

    /// The routes `/health` and `/ready`.
    pub fn router(&self) -> Router {
        let readiness = self.clone();
        Router::new().route("/health", get(|| async { Json(serde_json::json!({"status": "ok"})) })).route(
            "/ready",
            get(move || async move {
                let ready = readiness.check().await;
                (if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(ready))
            }),
        )
    }
}
