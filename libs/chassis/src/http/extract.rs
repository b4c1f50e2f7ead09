//! axum's extractors with our refusals: every rejection is a [`Problem`] that names the field and the rule.

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::body::timed_out;
use super::edge::payload_too_large;
use crate::problem::Problem;

/// A JSON body.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

/// A query string.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

/// Path parameters; one that does not parse is a path that does not exist.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !content_type.to_ascii_lowercase().starts_with("application/json") {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body must be JSON")
                .field("content-type", "must be application/json"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection))?;
        parse(&bytes).map(Self)
    }
}

/// Parses a JSON body.
///
/// # Errors
/// 400 `invalid_json` when it is not JSON, 422 `invalid_request` with the path of the field when it is not what was asked for.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            // serde's message names types and fields, never the value of a string.
            let rule = inner.to_string();
            let rule = rule.split(" at line ").next().unwrap_or_default();
            let rule = if rule.starts_with("invalid type: string") { "has the wrong type" } else { rule };
            Problem::invalid_field(if path == "." { "body".to_owned() } else { path }, rule)
        } else {
            Problem::bad_request("invalid_json", "The body is not JSON")
                .field("body", format!("must be JSON (line {}, column {})", inner.line(), inner.column()))
        }
    })?;
    deserializer
        .end()
        .map_err(|_| Problem::bad_request("invalid_json", "The body is not JSON").field("body", "must end after one JSON value"))?;
    Ok(value)
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => payload_too_large(),
        rejection if timed_out(rejection) => Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body did not come in time"),
        _ => Problem::bad_request("unreadable_body", "The body could not be read"),
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let axum::extract::Query(value) = axum::extract::Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::bad_request("invalid_query", "The query string is not valid").detail(rejection.body_text()))?;
        Ok(Self(value))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|_| Problem::not_found())
    }
}
