//! An answer in frames.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde::Serialize;

use super::request::Answer;
use crate::knobs::{Knobs, UsageFrames};
use crate::ledger::{Ended, Entry};
use crate::line::Line;
use crate::wire::{CREATED, Chunk, ChunkChoice, ChunkUsage, Delta, FinishReason, Refusal, Usage};
use crate::words;

pub(super) fn respond(answer: Answer, knobs: Knobs, entry: Entry, line: Option<Line>) -> Response {
    let frames = Frames { answer, knobs, entry: Some(entry), line, next: Next::Role(0) };
    let body = stream::unfold(frames, |mut frames| async move { frames.next().await.map(|frame| (frame, frames)) });
    let headers = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(body)).into_response()
}

/// What comes next; the number is the choice's.
#[derive(Debug, Clone, Copy)]
enum Next {
    Role(u64),
    /// Words of a choice, from this word on.
    Words(u64, u64),
    Finish(u64),
    Usage,
    Done,
    Nothing,
}

struct Frames {
    answer: Answer,
    knobs: Knobs,
    /// Until the request has ended.
    entry: Option<Entry>,
    line: Option<Line>,
    next: Next,
}

impl Frames {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let sent = self.entry.as_ref()?.output_tokens();
        if !matches!(self.next, Next::Role(_)) {
            if self.knobs.cut_after == Some(sent) {
                return Some(Err(self.cut().await));
            }
            if self.knobs.hang_after == Some(sent) {
                self.will_end(Ended::Hang);
                std::future::pending::<()>().await;
            }
            if self.knobs.error_after == Some(sent) {
                self.end(Ended::Error);
                return Some(event(&Refusal::failed(self.knobs.error_status).into_body()));
            }
        }
        match self.next {
            Next::Role(choice) => {
                self.hand_over(0);
                self.next = match choice + 1 {
                    next if next < self.answer.choices => Next::Role(next),
                    _ => self.words(0, 0),
                };
                Some(self.choice(choice, Delta { role: Some("assistant"), content: Some(String::new()) }, None))
            }
            Next::Words(choice, start) => Some(self.some_words(choice, start, sent).await),
            Next::Finish(choice) => {
                self.next = match choice + 1 {
                    next if next < self.answer.choices => Next::Finish(next),
                    _ if self.answer.include_usage && self.knobs.usage != UsageFrames::Off => Next::Usage,
                    _ => Next::Done,
                };
                Some(self.choice(choice, Delta::default(), Some(self.answer.finish_reason)))
            }
            Next::Usage => {
                self.next = Next::Done;
                Some(self.chunk(Vec::new(), ChunkUsage::Count(Usage::new(self.answer.input_tokens, sent))))
            }
            Next::Done => {
                // Before the last frame is sent: who has it in hands finds the row in the ledger.
                self.end(Ended::Completed);
                self.next = Next::Nothing;
                Some(Ok(Bytes::from_static(b"data: [DONE]\n\n")))
            }
            Next::Nothing => None,
        }
    }

    /// A frame of words; a fault that was asked for after so many tokens comes after exactly as many.
    async fn some_words(&mut self, choice: u64, start: u64, sent: u64) -> io::Result<Bytes> {
        if sent > 0 && self.knobs.pace_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.knobs.pace_ms)).await;
        }
        let round = start - start % self.knobs.tokens_per_frame;
        let end = (round + self.knobs.tokens_per_frame).min(self.answer.output_tokens);
        let faults = [self.knobs.cut_after, self.knobs.hang_after, self.knobs.error_after];
        let until_fault = faults.into_iter().flatten().filter_map(|after| after.checked_sub(sent)).min().unwrap_or(u64::MAX);
        let count = (end - start).min(until_fault);
        self.hand_over(count);
        self.next = match choice + 1 {
            _ if start + count < end => Next::Words(choice, start + count),
            next if next < self.answer.choices => self.words(next, round),
            _ => self.words(0, end),
        };
        self.choice(choice, Delta { role: None, content: Some(words::text(choice, start, count)) }, None)
    }

    const fn words(&self, choice: u64, start: u64) -> Next {
        if start < self.answer.output_tokens { Next::Words(choice, start) } else { Next::Finish(0) }
    }

    /// Ends the connection when all frames before have gone out.
    async fn cut(&mut self) -> io::Error {
        self.will_end(Ended::Cut);
        if let Some(line) = &self.line {
            line.flushed().await;
            line.reset_at_end();
        }
        self.end(Ended::Cut);
        io::ErrorKind::ConnectionReset.into()
    }

    fn hand_over(&mut self, tokens: u64) {
        if let Some(entry) = &mut self.entry {
            entry.hand_over(self.answer.input_tokens, tokens);
        }
    }

    const fn will_end(&mut self, end: Ended) {
        if let Some(entry) = &mut self.entry {
            entry.will_end(end);
        }
    }

    fn end(&mut self, end: Ended) {
        if let Some(entry) = self.entry.take() {
            entry.end(end);
        }
    }

    fn choice(&self, index: u64, delta: Delta, finish_reason: Option<FinishReason>) -> io::Result<Bytes> {
        let usage = match self.knobs.usage {
            _ if !self.answer.include_usage => ChunkUsage::Absent,
            UsageFrames::NullFirst => ChunkUsage::Null,
            UsageFrames::ZeroFirst => ChunkUsage::Count(Usage::new(self.answer.input_tokens, 0)),
            UsageFrames::On | UsageFrames::Off => ChunkUsage::Absent,
        };
        self.chunk(vec![ChunkChoice { index, delta, logprobs: (), finish_reason }], usage)
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: ChunkUsage) -> io::Result<Bytes> {
        event(&Chunk { id: &self.answer.id, object: "chat.completion.chunk", created: CREATED, model: self.answer.model, choices, usage })
    }
}

fn event(data: &impl Serialize) -> io::Result<Bytes> {
    let mut event = b"data: ".to_vec();
    serde_json::to_writer(&mut event, data)?;
    event.extend_from_slice(b"\n\n");
    Ok(event.into())
}
