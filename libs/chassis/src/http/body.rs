//! Bodies that hold something until their end, and bodies that must end in time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// A body that drops `guard` when it ends, whichever way.
#[derive(Debug)]
pub struct Guarded<G> {
    inner: Body,
    _guard: G,
}

impl<G: Send + Unpin + 'static> Guarded<G> {
    /// Holds `guard` as long as `inner` lives.
    pub fn wrap(inner: Body, guard: G) -> Body {
        Body::new(Self { inner, _guard: guard })
    }
}

impl<G: Unpin> http_body::Body for Guarded<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body that must have come within a time: who sends slowly must not keep a place for long.
#[derive(Debug)]
pub struct Deadlined {
    inner: Body,
    until: Pin<Box<Sleep>>,
}

impl Deadlined {
    /// `inner`, which must end within `time` from now.
    pub fn wrap(inner: Body, time: Duration) -> Body {
        Body::new(Self { inner, until: Box::pin(sleep(time)) })
    }
}

impl http_body::Body for Deadlined {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.until.as_mut().poll(cx).map(|()| Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Whether a body could not be read because it did not end in time.
#[must_use]
pub fn timed_out(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|error| error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut))
}

/// Whether a body could not be read because it is larger than the edge lets through.
#[must_use]
pub fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|error| error.downcast_ref::<http_body_util::LengthLimitError>().is_some())
}

/// An error and what it came from.
fn causes<'e>(error: &'e (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
