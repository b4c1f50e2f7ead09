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
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use utoipa::ToSchema;

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it is told that all is well before the checks look again.
const WELL: Duration = Duration::from_secs(1);
/// The same of something that is wrong: a service that has just started, or whose dependency is back, is soon ready.
const WRONG: Duration = Duration::from_millis(100);

type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// `ok`, or what is wrong, by dependency.
type Outcomes = BTreeMap<&'static str, String>;

/// The checks that decide whether a service is ready; cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Default)]
struct Inner {
    checks: Mutex<Vec<(&'static str, Check)>>,
    draining: AtomicBool,
    /// What the checks found last, and when; held while they look.
    found: AsyncMutex<Option<(Instant, Outcomes)>>,
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

    /// Runs all checks, together and now.
    pub async fn check(&self) -> Ready {
        self.told(self.look().await)
    }

    /// What the checks found within the last second, or, where something is wrong, the last tenth; they run when that is too old. Anybody may ask,
    /// and however many do, the checks run no more often than that and never twice at a time: whoever asks while they run waits for what they find.
    /// That the service is draining is told at once.
    pub async fn recent(&self) -> Ready {
        if self.draining() {
            return self.told(Outcomes::new());
        }
        // A task of its own: whoever asks and goes away does not end what others wait for, nor have them begin anew.
        let readiness = self.clone();
        let found = tokio::spawn(async move { readiness.found().await }).await;
        self.told(found.unwrap_or_else(|_| Outcomes::from([("checks", "ended unexpectedly".to_owned())])))
    }

    async fn found(&self) -> Outcomes {
        let mut found = self.0.found.lock().await;
        if let Some((at, outcomes)) = &*found
            && at.elapsed() < kept(outcomes)
        {
            return outcomes.clone();
        }
        let outcomes = self.look().await;
        *found = Some((Instant::now(), outcomes.clone()));
        outcomes
    }

    async fn look(&self) -> Outcomes {
        let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let run = checks.into_iter().map(|(name, check)| async move {
            let outcome = match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
                Ok(Ok(())) => "ok".to_owned(),
                Ok(Err(error)) => error,
                Err(_) => "no answer in time".to_owned(),
            };
            (name, outcome)
        });
        join_all(run).await.into_iter().collect()
    }

    fn told(&self, mut checks: Outcomes) -> Ready {
        if self.draining() {
            checks.insert("draining", "the service is stopping".to_owned());
        }
        Ready { ready: are_well(&checks), checks }
    }

    /// The routes `/health` and `/ready`.
    pub fn router(&self) -> Router {
        let readiness = self.clone();
        Router::new().route("/health", get(|| async { Json(serde_json::json!({"status": "ok"})) })).route(
            "/ready",
            get(move || async move {
                let ready = readiness.recent().await;
                (if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(ready))
            }),
        )
    }
}

fn are_well(outcomes: &Outcomes) -> bool {
    outcomes.values().all(|outcome| outcome == "ok")
}

fn kept(outcomes: &Outcomes) -> Duration {
    if are_well(outcomes) { WELL } else { WRONG }
}
