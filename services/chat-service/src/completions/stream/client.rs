//! The client's side of a stream: present, gone while the provider is still read, or given up.

use bytes::Bytes;
use llm::sse::KEEP_ALIVE;
use tokio::sync::mpsc::{self, OwnedPermit};

use crate::completions::call::{Answer, Head};
use crate::completions::drain::Drain;
use crate::state::AppState;

/// Pieces that may wait for a slow client.
const BUFFER: usize = 16;

/// Where a stream goes.
pub(super) struct Client {
    items: mpsc::Sender<Bytes>,
    /// A place kept for the error with which a stream breaks off: it must be sent also when the client reads slowly.
    last: Option<OwnedPermit<Bytes>>,
    gone: Option<Gone>,
}

/// What is still granted to a stream without a client.
struct Gone {
    drain: Drain,
    /// Bytes received at the moment of leaving.
    since: usize,
}

impl Client {
    /// Sends the head of the answer with its first piece.
    pub(super) fn begin(first: Bytes, answer: Answer) -> Self {
        let (items, received) = mpsc::channel(BUFFER);
        let last = items.clone().try_reserve_owned().ok();
        // The channel is new and has room. Whether the client still waits shows when the channel is used.
        let _ = items.try_send(first);
        let _ = answer.send(Ok(Head::Stream(received)));
        Self { items, last, gone: None }
    }

    /// Resolves when the client leaves, and when what is granted to a stream without a client is used up.
    pub(super) async fn left(&mut self, state: &AppState, received: usize) {
        match &self.gone {
            None => {
                self.items.closed().await;
                self.gone = Some(Gone { drain: Drain::begin(state), since: received });
            }
            Some(gone) => gone.drain.over().await,
        }
    }

    /// Whether a stream without a client is to be ended now.
    pub(super) fn is_given_up(&self) -> bool {
        self.gone.as_ref().is_some_and(|gone| gone.drain.is_over())
    }

    /// Whether a stream without a client has used up its bytes.
    pub(super) fn exceeds(&self, state: &AppState, received: usize) -> bool {
        self.gone.as_ref().is_some_and(|gone| received - gone.since > state.drain.max_bytes)
    }

    /// Whether the client has left.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_some() || self.items.is_closed()
    }

    /// Sends a piece, waiting for a slow client; whether there was one to take it.
    pub(super) async fn send(&self, items: Bytes) -> bool {
        match self.gone {
            Some(_) => false,
            None if items.is_empty() => !self.items.is_closed(),
            // That the client has left is noticed by `left`.
            None => self.items.send(items).await.is_ok(),
        }
    }

    /// Sends a comment, unless there is something to send anyway.
    pub(super) fn keep_alive(&self) {
        let _ = self.items.try_send(KEEP_ALIVE);
    }

    /// Sends the last piece at once.
    pub(super) fn last_words(&mut self, items: Bytes) {
        if let Some(place) = self.last.take() {
            place.send(items);
        }
    }
}
