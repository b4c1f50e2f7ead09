//! `POST /v1/chat/completions`

use std::time::Duration;

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::knobs::Knobs;
use crate::ledger::{Ended, Entry};
use crate::line::Line;
use crate::simulator::Simulator;
use crate::wire::Refusal;

mod request;
mod stream;
mod whole;

use request::Answer;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

type Connection = Option<Extension<ConnectInfo<Line>>>;

/// Answers, or does what the knobs say instead.
pub(crate) async fn create(State(simulator): State<Simulator>, connection: Connection, headers: HeaderMap, body: Bytes) -> Response {
    let entry = simulator.ledger.open(headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()));
    let request_id = HeaderValue::from_str(entry.request_id()).ok();
    let line = connection.map(|Extension(ConnectInfo(line))| line);
    let knobs = simulator.knobs().turned_by(&headers);
    let mut response = respond(entry, knobs, &body, line).await;
    if let Some(request_id) = request_id {
        response.headers_mut().insert(REQUEST_ID, request_id);
    }
    response
}

async fn respond(mut entry: Entry, knobs: Result<Knobs, String>, body: &[u8], line: Option<Line>) -> Response {
    let knobs = match knobs {
        Ok(knobs) => knobs.for_request(entry.number()),
        Err(message) => return refuse(entry, Ended::Refused, Refusal::invalid(None, message)),
    };
    let answer = match Answer::plan(body, &knobs, &mut entry) {
        Ok(answer) => answer,
        Err(refusal) => return refuse(entry, Ended::Refused, refusal),
    };
    if knobs.ttfb_ms > 0 {
        tokio::time::sleep(Duration::from_millis(knobs.ttfb_ms)).await;
    }
    if knobs.hang {
        entry.will_end(Ended::Hang);
        // Ends when the client gives up: the server then drops what it waits for.
        std::future::pending::<()>().await;
    }
    if knobs.limit_percent > 0 {
        return refuse(entry, Ended::Refused, Refusal::rate_limited(knobs.retry_after_s));
    }
    if knobs.error_percent > 0 {
        return refuse(entry, Ended::Error, Refusal::failed(knobs.error_status));
    }
    if answer.stream { stream::respond(answer, knobs, entry, line) } else { whole::respond(&answer, &knobs, entry, line) }
}

fn refuse(entry: Entry, end: Ended, refusal: Refusal) -> Response {
    entry.end(end);
    refusal.into_response()
}
