//! An answer that comes in pieces: passed on as they come, watched, and read to its end also when the client has left.

use std::time::Instant;

use bytes::Bytes;
use contracts::usage::Outcome;
use http::header;
use llm::sse::{self, Decoder};
use llm::{Tally, Verdict};
use reqwest::Response;
use serde::de::IgnoredAny;
use tokio::time::{Instant as TokioInstant, sleep_until};

use super::call::{Answer, Call};
use crate::error::ApiError;
use crate::provider::late_error;
use crate::settlement::{Checkpoints, Guard};

mod client;

use client::Client;

/// Runs the stream and settles.
pub(super) async fn run(call: &Call, mut guard: Guard, mut answer: Answer) {
    let asked = Instant::now();
    let limit = TokioInstant::now() + call.state.provider_config.first_byte_timeout.0;
    let begun = tokio::select! {
        begun = begin(call, &mut guard) => begun,
        () = sleep_until(limit) => Err((ApiError::UpstreamTimeout, Outcome::Failed)),
        () = sleep_until(call.deadline()) => Err((ApiError::UpstreamTimeout, Outcome::Deadline)),
        () = call.shutdown() => Err((ApiError::Unavailable("this instance"), Outcome::Shutdown)),
        () = call.given_up(&mut answer) => return guard.give_up(Outcome::ClientClosed).await,
    };
    match begun {
        Ok((first, source)) => {
            chassis::step!("stream.begun");
            call.record_overhead(asked.elapsed());
            let client = Client::begin(first, answer);
            let checkpoints = guard.checkpoints(&call.state.admissions, call.state.limits.checkpoint.0);
            let outcome = Relay { call, source, client, checkpoints }.run(&mut guard.tally).await;
            guard.settle(outcome).await;
        }
        Err((error, outcome)) => {
            guard.release(outcome);
            // The client may have left; there is nobody else to tell.
            let _ = answer.send(Err(error));
        }
    }
}

/// Waits for the first item: until then nothing has been promised to the client [trap 12].
async fn begin(call: &Call, guard: &mut Guard) -> Result<(Bytes, Source), (ApiError, Outcome)> {
    let failed = |error| (error, Outcome::Failed);
    let response = call.send().await.map_err(failed)?;
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        tracing::warn!("the provider answered a stream with something else");
        return Err(failed(ApiError::UpstreamFailed));
    }
    let mut source = Source::new(call, response);
    loop {
        let piece = source.next(&mut guard.tally).await;
        match piece {
            Piece::Items(items) if items.is_empty() => {}
            Piece::Items(items) => {
                guard.begun = true;
                return Ok((items, source));
            }
            Piece::Done(items) => {
                guard.begun = true;
                source.ended = true;
                return Ok((items, source));
            }
            Piece::Error(items, _) if guard.tally.has_text() => {
                // An error right behind text of the same piece: text was generated.
                guard.begun = true;
                source.ended = true;
                return Ok((items, source));
            }
            Piece::Error(_, error) => return Err(failed(error)),
            Piece::Cut => return Err(failed(ApiError::UpstreamFailed)),
        }
    }
}

/// What came from the provider.
enum Piece {
    /// Events for the client, encoded; none, when they were not for the client.
    Items(Bytes),
    /// The same with the provider's own end.
    Done(Bytes),
    /// The same with the provider's own error, and what it means.
    Error(Bytes, ApiError),
    /// The connection ended, or what came cannot be read.
    Cut,
}

/// The provider's side of a stream.
struct Source {
    response: Response,
    decoder: Decoder,
    wants_usage: bool,
    received: usize,
    /// Nothing more will come: the connection has ended.
    over: bool,
    /// The first piece was the last one too.
    ended: bool,
}

impl Source {
    fn new(call: &Call, response: Response) -> Self {
        let decoder = Decoder::new(call.state.provider_config.max_frame_bytes);
        Self { response, decoder, wants_usage: call.request.wants_usage(), received: 0, over: false, ended: false }
    }

    /// The next piece; may be dropped while waiting.
    async fn next(&mut self, tally: &mut Tally) -> Piece {
        if self.over {
            return Piece::Cut;
        }
        let chunk = match self.response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return self.end(tally),
            Err(error) => {
                tracing::warn!(error.message = %error.without_url(), "the provider's stream broke off");
                return self.end(tally);
            }
        };
        self.received += chunk.len();
        let mut items = Items { encoded: Vec::with_capacity(chunk.len() + 16), last: None, wants_usage: self.wants_usage };
        match self.decoder.feed(&chunk, |data| items.take(&data, tally)) {
            Err(error) if items.last.is_none() => {
                tracing::warn!(error.message = %error, "the provider's stream cannot be read");
                Piece::Cut
            }
            _ => items.into_piece(),
        }
    }

    /// The last event may lack its blank line; one that is not whole is none.
    fn end(&mut self, tally: &mut Tally) -> Piece {
        self.over = true;
        let is_whole = |data: &Bytes| **data == *sse::DONE || serde_json::from_slice::<IgnoredAny>(data).is_ok();
        let Some(data) = self.decoder.finish().filter(is_whole) else { return Piece::Cut };
        let mut items = Items { encoded: Vec::new(), last: None, wants_usage: self.wants_usage };
        items.take(&data, tally);
        items.into_piece()
    }
}

/// Events of a piece, for the client.
struct Items {
    encoded: Vec<u8>,
    /// The one that ends the stream.
    last: Option<Last>,
    wants_usage: bool,
}

/// How the provider ends its stream.
enum Last {
    Done,
    Error(ApiError),
}

impl Items {
    fn take(&mut self, data: &[u8], tally: &mut Tally) {
        if self.last.is_some() {
            return;
        }
        match tally.event(data) {
            Verdict::Usage if !self.wants_usage => {}
            Verdict::Forward | Verdict::Usage => sse::encode(llm::without_cost(data).as_deref().unwrap_or(data), &mut self.encoded),
            Verdict::Done => {
                sse::encode(data, &mut self.encoded);
                self.last = Some(Last::Done);
            }
            Verdict::Error => {
                let error = late_error(data);
                sse::encode(&error.to_bytes(), &mut self.encoded);
                self.last = Some(Last::Error(error));
            }
        }
    }

    fn into_piece(self) -> Piece {
        match self.last {
            Some(Last::Done) => Piece::Done(self.encoded.into()),
            Some(Last::Error(error)) => Piece::Error(self.encoded.into(), error),
            None => Piece::Items(self.encoded.into()),
        }
    }
}

/// Moves pieces from the provider to the client.
struct Relay<'c> {
    call: &'c Call,
    source: Source,
    client: Client,
    checkpoints: Checkpoints,
}

impl Relay<'_> {
    async fn run(mut self, tally: &mut Tally) -> Outcome {
        if self.source.ended {
            return if tally.is_done() { finished(!self.client.is_gone()) } else { Outcome::UpstreamCut };
        }
        let shutdown = self.call.shutdown();
        tokio::pin!(shutdown);
        let config = &self.call.state.provider_config;
        let mut idle = TokioInstant::now() + config.idle_timeout.0;
        let mut keep_alive = TokioInstant::now() + config.keep_alive.0;
        loop {
            let limit = idle.min(self.call.deadline());
            let received = self.source.received;
            let piece = tokio::select! {
                biased;
                () = self.client.left(&self.call.state, received) => {
                    if self.client.is_given_up() {
                        return Outcome::ClientClosed;
                    }
                    continue;
                }
                () = sleep_until(self.checkpoints.next()) => {
                    self.checkpoints.note(tally);
                    continue;
                }
                piece = self.source.next(tally) => piece,
                () = sleep_until(limit) => {
                    let outcome = if limit == idle { Outcome::UpstreamCut } else { Outcome::Deadline };
                    return self.broken(outcome, &ApiError::UpstreamTimeout, tally);
                }
                () = &mut shutdown => return self.broken(Outcome::Shutdown, &ApiError::Unavailable("this instance"), tally),
                () = sleep_until(keep_alive), if !self.client.is_gone() => {
                    self.client.keep_alive();
                    keep_alive = TokioInstant::now() + config.keep_alive.0;
                    continue;
                }
            };
            let (items, last) = match piece {
                Piece::Items(items) => (items, None),
                Piece::Done(items) => (items, Some(Outcome::Completed)),
                Piece::Error(items, _) => (items, Some(self.failed(Outcome::UpstreamCut, tally))),
                Piece::Cut => return self.broken(Outcome::UpstreamCut, &ApiError::UpstreamFailed, tally),
            };
            if self.client.exceeds(&self.call.state, self.source.received) {
                return Outcome::ClientClosed;
            }
            chassis::step!("stream.piece");
            // A client that reads slowly holds up the provider, not our memory; the deadline still counts.
            let delivered = tokio::select! {
                delivered = self.client.send(items) => delivered,
                () = sleep_until(self.call.deadline()) => return self.broken(Outcome::Deadline, &ApiError::UpstreamTimeout, tally),
                () = &mut shutdown => return self.broken(Outcome::Shutdown, &ApiError::Unavailable("this instance"), tally),
            };
            chassis::step!("stream.delivered");
            match last {
                Some(Outcome::Completed) => return finished(delivered),
                Some(outcome) => return outcome,
                None => {}
            }
            idle = TokioInstant::now() + config.idle_timeout.0;
            keep_alive = TokioInstant::now() + config.keep_alive.0;
        }
    }

    /// Tells the client that the answer broke off: an error and no `[DONE]` [trap 14].
    fn broken(&mut self, outcome: Outcome, error: &ApiError, tally: &Tally) -> Outcome {
        let outcome = self.failed(outcome, tally);
        let mut event = Vec::new();
        sse::encode(&error.to_bytes(), &mut event);
        self.client.last_words(event.into());
        outcome
    }

    /// What fails behind the back of a client that left is not why it got no answer, and at the deadline not why it got none at all. To be
    /// asked before the client is told, because one that is told leaves.
    fn failed(&self, outcome: Outcome, tally: &Tally) -> Outcome {
        match outcome {
            Outcome::UpstreamCut if self.client.is_gone() => Outcome::ClientClosed,
            Outcome::Deadline if self.client.is_gone() && !tally.has_text() => Outcome::ClientClosed,
            outcome => outcome,
        }
    }
}

/// The provider's answer is complete; whether there was somebody to take its end is what is left to say.
fn finished(delivered: bool) -> Outcome {
    if delivered { Outcome::Completed } else { Outcome::ClientClosed }
}
