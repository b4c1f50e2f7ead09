//! An answer in one piece.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};

use super::request::Answer;
use crate::knobs::{Knobs, UsageFrames};
use crate::ledger::{Ended, Entry};
use crate::line::Line;
use crate::wire::{CREATED, Choice, Completion, Message, Refusal, Usage};
use crate::words;

pub(super) fn respond(answer: &Answer, knobs: &Knobs, mut entry: Entry, line: Option<Line>) -> Response {
    if knobs.error_after.is_some() {
        return super::refuse(entry, Ended::Error, Refusal::failed(knobs.error_status));
    }
    let completion = complete(answer, knobs);
    if knobs.cut_after.is_some() || knobs.hang_after.is_some() {
        return match serde_json::to_vec(&completion) {
            Ok(json) => half(json, knobs.cut_after.is_some(), entry, line),
            Err(_) => super::refuse(entry, Ended::Error, Refusal::failed(500)),
        };
    }
    entry.hand_over(answer.input_tokens, answer.output_tokens * answer.choices);
    entry.end(Ended::Completed);
    Json(completion).into_response()
}

fn complete<'a>(answer: &'a Answer, knobs: &Knobs) -> Completion<'a> {
    let choice = |index| Choice {
        index,
        message: Message { role: "assistant", content: words::text(index, 0, answer.output_tokens), refusal: () },
        logprobs: (),
        finish_reason: answer.finish_reason,
    };
    let usage = Usage::new(answer.input_tokens, answer.output_tokens * answer.choices);
    Completion {
        id: &answer.id,
        object: "chat.completion",
        created: CREATED,
        model: answer.model,
        choices: (0..answer.choices).map(choice).collect(),
        usage: (knobs.usage != UsageFrames::Off).then_some(usage),
    }
}

/// Half of an answer: nothing that anybody could read, so nothing is handed over.
fn half(mut json: Vec<u8>, cut: bool, mut entry: Entry, line: Option<Line>) -> Response {
    let length = json.len();
    json.truncate(length / 2);
    let rest = async move {
        entry.will_end(if cut { Ended::Cut } else { Ended::Hang });
        if !cut {
            std::future::pending::<()>().await;
        }
        if let Some(line) = line {
            line.flushed().await;
            line.reset_at_end();
        }
        drop(entry);
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    };
    let body = stream::iter([Ok(Bytes::from(json))]).chain(stream::once(rest));
    let headers = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::CONTENT_LENGTH, length.to_string())];
    (headers, Body::from_stream(body)).into_response()
}
