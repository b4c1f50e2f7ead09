//! The one way to a model: every route that calls one goes through [`admit`] [trap 10].

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use contracts::RequestId;
use http::{HeaderMap, HeaderValue, header};
use identity::{Principal, Scope};
use llm::ChatRequest;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use super::call::{Call, Head};
use crate::error::ApiError;
use crate::state::AppState;

/// Checks the request and the caller's limits, takes a place for the settlement, and starts the call.
///
/// The call is a task of its own: a client that leaves cancels the waiting, never the call, so that what it holds is always
/// settled.
///
/// # Errors
/// What the client is told instead of an answer.
pub async fn admit(state: &AppState, caller: Principal, id: RequestId, headers: &HeaderMap, body: &[u8]) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    caller.require(Scope::ChatWrite)?;
    let request = ChatRequest::parse(body)?;
    let model = state.models.find(request.model()).ok_or(ApiError::ModelNotFound)?;
    let slot = state.settlements.take_place()?;
    state.rate.admit(&caller, id).await?;
    let call = Call {
        id,
        caller,
        model,
        request: Arc::new(request),
        headers: state.provider.forwarded(headers),
        started_at: state.clock.now(),
        arrived,
        state: state.clone(),
    };
    let (answer, waiting) = oneshot::channel();
    state.tasks.spawn(call.run(slot, answer).in_current_span());
    match waiting.await {
        Ok(Ok(head)) => Ok(respond(head)),
        Ok(Err(error)) => Err(error),
        // Only a panic of the call ends it without an answer.
        Err(_) => Err(ApiError::Internal("a call ended without an answer")),
    }
}

fn respond(head: Head) -> Response {
    let (kind, body) = match head {
        Head::Whole(body) => ("application/json", Body::from(body)),
        Head::Stream(items) => {
            ("text/event-stream; charset=utf-8", Body::from_stream(ReceiverStream::new(items).map(Ok::<Bytes, std::convert::Infallible>)))
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
