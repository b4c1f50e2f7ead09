//! A value that is fetched for many by one: however many ask, one request is under way, and after a failure everybody is refused
//! at once for a moment. So a server that hangs holds nobody up for longer than one request.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chassis::Clock;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tracing::Instrument;

use crate::api_key::LookupUnavailable;

/// How long nothing is tried again after a failure.
const PAUSE: TimeDelta = TimeDelta::seconds(1);

type Outcome<T> = Option<Result<T, LookupUnavailable>>;

/// The last value, and the fetch of the next.
#[derive(Debug)]
pub(crate) struct Fetched<T> {
    clock: Clock,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    /// The value, and when it was asked for.
    known: Option<(DateTime<Utc>, T)>,
    /// When a fetch failed, if none has succeeded since.
    failed: Option<DateTime<Utc>>,
    running: Option<watch::Receiver<Outcome<T>>>,
}

/// What a wish for a fetch came to.
enum Begun<T> {
    /// Somebody else's fetch was faster.
    Known(T),
    /// One is under way.
    Running(watch::Receiver<Outcome<T>>),
    /// The last one failed a moment ago.
    Refused,
}

impl<T: Clone + Send + Sync + 'static> Fetched<T> {
    /// Nothing yet.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::new(State { known: None, failed: None, running: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last value and its age.
    pub(crate) fn known(&self) -> Option<(TimeDelta, T)> {
        let (at, value) = self.state().known.clone()?;
        Some((self.clock.now() - at, value))
    }

    /// Whether the last fetch failed.
    pub(crate) fn failing(&self) -> bool {
        self.state().failed.is_some()
    }

    /// Fetches without waiting for it; does nothing when `good` finds the known value good enough, when a fetch is under way, or
    /// when one failed a moment ago.
    pub(crate) fn renew<F>(self: &Arc<Self>, good: impl FnOnce(TimeDelta, &T) -> bool, fetch: F)
    where
        F: Future<Output = Result<T, LookupUnavailable>> + Send + 'static,
    {
        self.begin(good, fetch);
    }

    /// The value of the fetch that is under way, or of a new one, or the known one when `good` finds it good enough after all.
    ///
    /// # Errors
    /// When the fetch fails, and at once when one failed a moment ago.
    pub(crate) async fn get<F>(self: &Arc<Self>, good: impl FnOnce(TimeDelta, &T) -> bool, fetch: F) -> Result<T, LookupUnavailable>
    where
        F: Future<Output = Result<T, LookupUnavailable>> + Send + 'static,
    {
        let mut running = match self.begin(good, fetch) {
            Begun::Known(value) => return Ok(value),
            Begun::Refused => return Err(LookupUnavailable),
            Begun::Running(running) => running,
        };
        // The other end is gone without an outcome only when the fetch panicked.
        let outcome = running.wait_for(Option::is_some).await.map_err(|_| LookupUnavailable)?;
        outcome.clone().unwrap_or(Err(LookupUnavailable))
    }

    fn begin<F>(self: &Arc<Self>, good: impl FnOnce(TimeDelta, &T) -> bool, fetch: F) -> Begun<T>
    where
        F: Future<Output = Result<T, LookupUnavailable>> + Send + 'static,
    {
        let (mut state, now) = (self.state(), self.clock.now());
        if let Some((at, value)) = &state.known
            && good(now - *at, value)
        {
            return Begun::Known(value.clone());
        }
        // One whose other end is gone has panicked and will never have an outcome.
        if let Some(running) = state.running.as_ref().filter(|running| running.has_changed().is_ok()) {
            return Begun::Running(running.clone());
        }
        // A clock that was set back must not make the pause longer.
        if state.failed.is_some_and(|at| (TimeDelta::zero()..PAUSE).contains(&(now - at))) {
            return Begun::Refused;
        }
        let (tell, running) = watch::channel(None);
        state.running = Some(running.clone());
        let fetched = Arc::clone(self);
        // A task of its own: who waits for it may give up, and the others must still get their answer.
        tokio::spawn(async move { fetched.land(now, fetch.await, &tell) }.in_current_span());
        Begun::Running(running)
    }

    /// Keeps the outcome before it is told: who asks from now on finds it.
    fn land(&self, asked: DateTime<Utc>, outcome: Result<T, LookupUnavailable>, tell: &watch::Sender<Outcome<T>>) {
        let mut state = self.state();
        state.running = None;
        match &outcome {
            Ok(value) => (state.known, state.failed) = (Some((asked, value.clone())), None),
            Err(LookupUnavailable) => state.failed = Some(self.clock.now()),
        }
        drop(state);
        tell.send_replace(Some(outcome));
    }
}
