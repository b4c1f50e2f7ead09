//! Tries for somebody who waits for the answer: again after pauses that grow, or that Stripe asks for, and within one time for all of it
//! [B-67].

use std::time::Duration;

use chassis::Random;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::backoff;
use super::transport::TransportError;
use crate::error::Error;

/// How long somebody waits, tries and pauses together.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The pause before the second try; doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// An error of a try.
pub(super) trait Tried: From<TransportError> {
    /// What Stripe said, where the same call may succeed a moment later.
    fn passing(&self) -> Option<&TransportError>;
}

impl Tried for TransportError {
    fn passing(&self) -> Option<&TransportError> {
        (!self.is_final()).then_some(self)
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
/// That of the last try, as soon as the next one would be too late; [`TransportError::Late`] when a try is cut off.
pub(super) async fn retry<T, E: Tried, Try: Future<Output = Result<T, E>>>(
    random: &Random,
    patience: Duration,
    attempt: impl Fn() -> Try,
) -> Result<T, E> {
    let until = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let Ok(tried) = timeout_at(until, attempt()).await else { return Err(TransportError::Late.into()) };
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
    timeout(patience, questions).await.unwrap_or_else(|_| Err(TransportError::Late.into()))
}
