//! `POST /v1/chat/completions`.

pub mod admission;
mod call;
mod drain;
mod schema;
mod stream;
mod whole;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use contracts::RequestId;
use http::{HeaderMap, HeaderValue};
use llm::ErrorBody;

use crate::caller::Caller;
use crate::state::AppState;

/// Asks a model. Fields that are not listed are passed on as they are, in both directions.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "chat", security(("bearer" = [])),
    params(("X-Trivet-Tags" = Option<String>, Header, description = "What the request is for: at most eight tags, separated by commas. Budgets can be for a tag, and the usage row has them.")),
    request_body = schema::CompletionRequest,
    responses(
        (status = 200, description = "The completion, or a stream of its chunks.", content(
            (schema::Completion = "application/json"),
            (schema::CompletionChunk = "text/event-stream"))),
        (status = 400, description = "The request breaks a rule; `param` names the field.", body = ErrorBody),
        (status = 401, description = "`invalid_api_key`", body = ErrorBody),
        (status = 402, description = "`insufficient_quota`: the balance; or `spend_limit_exceeded`: a budget of a day or a month.", body = ErrorBody),
        (status = 403, description = "`missing_scope`, or `model_not_in_plan`", body = ErrorBody),
        (status = 404, description = "`model_not_found`", body = ErrorBody),
        (status = 408, description = "`request_timeout`: the body did not come in time.", body = ErrorBody),
        (status = 413, description = "`payload_too_large`", body = ErrorBody),
        (status = 422, description = "The model's provider refused the request; `code` is its own, as `context_length_exceeded`.", body = ErrorBody),
        (status = 429, description = "`rate_limit_exceeded`, or `spend_limit_exceeded` of a minute; `Retry-After` says when.", body = ErrorBody),
        (status = 502, description = "`upstream_failed`", body = ErrorBody),
        (status = 503, description = "`service_unavailable`; `Retry-After` says when.", body = ErrorBody),
        (status = 504, description = "`upstream_timeout`", body = ErrorBody)))]
pub async fn create(State(state): State<AppState>, Caller(principal): Caller, headers: HeaderMap, body: Body) -> Response {
    let id = RequestId::new(&state.clock, &state.random);
    let answer = admission::admit(&state, principal, id, &headers, body).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}
