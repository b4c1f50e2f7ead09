//! Request bodies, counted in bytes while their requests are in flight: prompts may hold images and files, and a few hundred of the
//! largest would be more than the memory there is.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;
use crate::meters;
use crate::state::AppState;

/// Smaller bodies are not counted: the number of requests at once bounds them, and a few large ones must not shut out everybody.
const SMALL: usize = 64 * 1024;

/// How many bytes may be held; cheap to clone.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Semaphore>);

/// A share of it, until it is dropped.
#[derive(Debug, Default)]
pub struct Share(Option<OwnedSemaphorePermit>);

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(held) = &self.0 {
            meters::bodies_free(held.num_permits());
        }
    }
}

/// A request's body, and its share: it is to be held as long as anything of the body is.
#[derive(Debug)]
pub struct HeldBody {
    /// The body.
    pub bytes: Bytes,
    /// Its share.
    pub share: Share,
}

impl BodyBudget {
    /// This many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Refuses a body of this length before any of it is read. Nothing is taken: who says a length and sends nothing holds nothing.
    fn check(&self, announced: usize) -> Result<(), ApiError> {
        if announced > SMALL && announced > self.0.available_permits() { Err(full()) } else { Ok(()) }
    }

    /// Makes a share reach for so many bytes.
    fn grow(&self, share: &mut Share, bytes: usize) -> Result<(), ApiError> {
        let missing = bytes.saturating_sub(share.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if bytes <= SMALL || missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| full())?;
        let more = Arc::clone(&self.0).try_acquire_many_owned(missing).map_err(|_| full())?;
        match &mut share.0 {
            Some(held) => held.merge(more),
            held => *held = Some(more),
        }
        meters::bodies_held(missing);
        Ok(())
    }
}

fn full() -> ApiError {
    ApiError::Unavailable("room for a body of this size")
}

impl FromRequest<AppState> for HeldBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let announced = announced(request.headers());
        state.bodies.check(announced)?;
        let (mut share, mut read) = (Share::default(), BytesMut::with_capacity(announced.min(SMALL)));
        let mut chunks = request.into_body().into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            state.bodies.grow(&mut share, read.len() + chunk.len())?;
            read.extend_from_slice(&chunk);
        }
        Ok(Self { bytes: read.freeze(), share })
    }
}

/// The length that the client says, if it says one.
fn announced(headers: &HeaderMap) -> usize {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_to_what_there_is_and_are_free_again_when_dropped() {
        let budget = BodyBudget::new(3 * SMALL);
        let (mut first, mut second, mut small) = (Share::default(), Share::default(), Share::default());
        for bytes in [1, SMALL, SMALL + 1, 2 * SMALL] {
            assert!(budget.grow(&mut first, bytes).is_ok());
        }
        assert_eq!(budget.0.available_permits(), SMALL);
        assert!(budget.grow(&mut second, SMALL + 1).is_err() && budget.check(SMALL + 1).is_err());
        assert!(budget.grow(&mut small, SMALL).is_ok() && budget.check(SMALL).is_ok(), "what is small needs none");
        drop(first);
        assert!(budget.check(3 * SMALL).is_ok() && budget.grow(&mut second, 3 * SMALL).is_ok());
        drop((second, small));
        assert_eq!(budget.0.available_permits(), 3 * SMALL);
        assert!(budget.check(3 * SMALL + 1).is_err());
    }
}
