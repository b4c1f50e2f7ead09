//! Tries for somebody who waits for the answer: again after pauses that grow, or that Stripe asks for, and within one time for all of it
//! [B-67].

use std::time::Duration;

use chassis::Random;
use tokio::task_local;
use tokio::time::{Instant, sleep, timeout_at};

use super::backoff;
use super::transport::TransportError;
use crate::error::Error;

/// How long somebody waits, tries and pauses together.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The pause before the second try; doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// For whom Stripe is asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asker {
    /// When whoever asks gives up; never, where that is not said.
    pub(super) until: Option<Instant>,
    /// Whether somebody waits for the answer.
    pub(super) waits: bool,
}

task_local! {
    /// For whom the task does what it does. Not handed from function to function: what makes a customer does it for the sender and for somebody
    /// who waits, by a request that async-stripe hands to our transport.
    static ASKER: Asker;
}

/// For whom the task does what it does; for nobody who waits, where that is not said.
pub(super) fn asker() -> Asker {
    ASKER.try_get().unwrap_or_default()
}

/// Does something for somebody who waits for it.
pub(super) async fn waited_for<T>(work: impl Future<Output = T>) -> T {
    ASKER.scope(Asker { waits: true, ..asker() }, work).await
}

/// An error of a try.
pub(super) trait Tried: From<TransportError> {
    /// What Stripe said, where the same call may succeed a moment later.
    fn passing(&self) -> Option<&TransportError>;
}

impl Tried for TransportError {
    fn passing(&self) -> Option<&TransportError> {
        // There are too many already: whoever is told so must not come again and again while its own caller waits.
        (!self.is_final() && !matches!(self, Self::Late)).then_some(self)
    }
}

impl Tried for Error {
    fn passing(&self) -> Option<&TransportError> {
        match self {
            Self::Stripe(error) => error.passing(),
            _ => None,
        }
    }
}

/// Tries until it succeeds, cannot succeed, or the time is over. The time is over for a try that is under way too: what it did is not known
/// then, and its key tells when it is made again.
///
/// # Errors
/// That of the last try, as soon as the next one would be too late; [`TransportError::Late`] when a try is cut off, or its turn would come too
/// late.
pub(super) async fn retry<T, E: Tried, Try: Future<Output = Result<T, E>>>(
    random: &Random,
    patience: Duration,
    attempt: impl Fn() -> Try,
) -> Result<T, E> {
    let until = sooner(Instant::now() + patience);
    let in_time = Asker { until: Some(until), ..asker() };
    let mut pause = FIRST_PAUSE;
    loop {
        let Ok(tried) = timeout_at(until, ASKER.scope(in_time, attempt())).await else { return Err(TransportError::Late.into()) };
        let Some(error) = tried.as_ref().err().and_then(Tried::passing) else { return tried };
        let wait = backoff::spread(random, error.retry_after().unwrap_or(pause));
        if Instant::now() + wait >= until {
            return tried;
        }
        sleep(wait).await;
        pause *= 2;
    }
}

/// Several questions for one who waits, in the time of one.
///
/// # Errors
/// Theirs; [`TransportError::Late`].
pub(super) async fn within<T>(patience: Duration, questions: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let until = sooner(Instant::now() + patience);
    let asked = ASKER.scope(Asker { until: Some(until), waits: true }, questions);
    timeout_at(until, asked).await.unwrap_or_else(|_| Err(TransportError::Late.into()))
}

/// This end, or that of what it is a part of.
fn sooner(end: Instant) -> Instant {
    asker().until.map_or(end, |until| until.min(end))
}
