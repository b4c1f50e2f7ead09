//! A model provider that answers what the test says, when the test says it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// A request as the provider got it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub text: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("the provider gets JSON")
    }
}

enum Reply {
    Whole(StatusCode, Vec<(&'static str, String)>, String),
    Events(mpsc::UnboundedReceiver<io::Result<Bytes>>),
    Hang,
}

#[derive(Default)]
struct Inner {
    replies: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
}

#[derive(Clone, Default)]
pub struct Upstream(Arc<Inner>);

/// The provider's end of a stream; dropping it ends the body.
pub struct Feed(mpsc::UnboundedSender<io::Result<Bytes>>);

impl Feed {
    pub fn raw(&self, text: &str) {
        // The gateway may have hung up, which is for the test to find.
        let _ = self.0.send(Ok(Bytes::copy_from_slice(text.as_bytes())));
    }

    pub fn event(&self, data: &Value) {
        self.raw(&format!("data: {data}\n\n"));
    }

    pub fn text(&self, text: &str) {
        self.event(
            &json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}], "usage": null}),
        );
    }

    pub fn usage(&self, input: u64, output: u64) {
        self.event(&json!({"id": "c", "choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output}}));
    }

    pub fn done(&self) {
        self.raw("data: [DONE]\n\n");
    }

    /// Breaks the connection in the middle of the body.
    pub fn cut(self) {
        let _ = self.0.send(Err(io::Error::other("cut")));
    }

    /// When the gateway hung up.
    pub async fn hung_up(&self) {
        self.0.closed().await;
    }
}

impl Upstream {
    pub fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// The next request gets a stream.
    pub fn stream(&self) -> Feed {
        let (feed, events) = mpsc::unbounded_channel();
        self.push(Reply::Events(events));
        Feed(feed)
    }

    /// What nobody has asked for is not answered.
    pub fn forget(&self) {
        self.0.replies.lock().expect("no panic").clear();
    }

    /// The next request gets this body.
    pub fn whole(&self, status: u16, body: &str) {
        self.whole_with(status, body, Vec::new());
    }

    pub fn whole_with(&self, status: u16, body: &str, headers: Vec<(&'static str, String)>) {
        self.push(Reply::Whole(StatusCode::from_u16(status).expect("a status"), headers, body.to_owned()));
    }

    /// The next request gets no answer.
    pub fn hang(&self) {
        self.push(Reply::Hang);
    }

    fn push(&self, reply: Reply) {
        self.0.replies.lock().expect("no panic").push_back(reply);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().expect("no panic").clone()
    }

    /// The request that the provider gets next, or has got as its `number`th.
    pub async fn request(&self, number: usize) -> Seen {
        testkit::eventually("the provider's request", || async { self.seen().get(number).cloned() }).await
    }
}

async fn answer(State(upstream): State<Upstream>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.expect("a body");
    let seen = Seen { path: parts.uri.path().to_owned(), headers: parts.headers, text: String::from_utf8_lossy(&body).into_owned() };
    upstream.0.seen.lock().expect("no panic").push(seen);
    let reply = upstream.0.replies.lock().expect("no panic").pop_front();
    match reply {
        Some(Reply::Whole(status, headers, body)) => {
            let mut response = (status, [("content-type", "application/json")], body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().expect("a header"));
            }
            response
        }
        Some(Reply::Events(events)) => {
            let events = UnboundedReceiverStream::new(events).map(|item| item);
            ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
        }
        Some(Reply::Hang) => std::future::pending().await,
        None => (StatusCode::IM_A_TEAPOT, "the test expected no request").into_response(),
    }
}
