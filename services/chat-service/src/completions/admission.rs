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
use crate::body::HeldBody;
use crate::error::ApiError;
use crate::limits::Tags;
use crate::state::AppState;

/// Reading a larger body would hold up the others on the same thread.
const SMALL_BODY: usize = 256 * 1024;

/// Reads the request and checks it, takes a place for the settlement, and starts the call.
///
/// The call is a task of its own: a client that leaves cancels the waiting, never the call, so that what it holds is always
/// settled.
///
/// # Errors
/// What the client is told instead of an answer.
pub async fn admit(state: &AppState, caller: Principal, id: RequestId, headers: &HeaderMap, body: Body) -> Result<Response, ApiError> {
    // Before anything is read: who may not call a model takes none of the memory for bodies.
    caller.require(Scope::ChatWrite)?;
    let HeldBody { bytes, share } = state.bodies.read(caller.organization_id, headers, body).await?;
    // The time that a client takes to send its request is its own.
    let arrived = Instant::now();
    let request = read(bytes).await?;
    let model = state.models.find(request.model()).ok_or(ApiError::ModelNotFound)?;
    let entitlements = state.entitlements.get(caller.organization_id).await?;
    if !entitlements.allow_model(&model.id) {
        return Err(ApiError::ModelNotInPlan);
    }
    let tags = Tags::read(headers)?;
    let slot = state.settlements.take_place()?;
    let call = Call {
        id,
        caller,
        model,
        request: Arc::new(request),
        share,
        entitlements,
        tags,
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

/// The body is gone when its request has been read: the request has its own copy of what is in it, and may take minutes.
async fn read(body: Bytes) -> Result<ChatRequest, ApiError> {
    if body.len() <= SMALL_BODY {
        return Ok(ChatRequest::parse(&body)?);
    }
    let reading = tokio::task::spawn_blocking(move || ChatRequest::parse(&body));
    Ok(reading.await.map_err(|_| ApiError::Internal("a request could not be read"))??)
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
