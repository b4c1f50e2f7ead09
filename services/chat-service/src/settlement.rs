//! What a completion used is handed over exactly once, whichever way it ends.
//!
//! A place in a bounded queue is taken before the provider is called, so handing over can neither wait nor fail: it happens in
//! a [`Guard`]'s drop at the latest. A writer moves the queue to the Redis stream that billing-service consumes, and keeps
//! what Redis does not take.

mod guard;
mod writer;

use chassis::redis::Redis;
use tokio::sync::mpsc;

use crate::error::ApiError;
use crate::meters;

pub use guard::Guard;
pub use writer::Writer;

/// A settlement on its way to the stream.
#[derive(Debug)]
pub struct Record {
    /// The usage event as JSON.
    pub event: String,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// A place in the queue.
pub type Slot = mpsc::OwnedPermit<Record>;

/// Gives places in the queue; cheap to clone.
#[derive(Debug, Clone)]
pub struct Settlements(mpsc::Sender<Record>);

impl Settlements {
    /// A queue of this many places, and its writer.
    #[must_use]
    pub fn new(places: usize, redis: Redis) -> (Self, Writer) {
        let (sender, receiver) = mpsc::channel(places.max(1));
        (Self(sender), Writer::new(receiver, redis))
    }

    /// Takes a place for a completion that is about to begin.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when there is none: what could not be settled must not be begun.
    pub fn take_place(&self) -> Result<Slot, ApiError> {
        let place = self.0.clone().try_reserve_owned().map_err(|_| ApiError::Unavailable("a place for the settlement"))?;
        meters::queue(self.0.max_capacity() - self.0.capacity());
        Ok(place)
    }
}
