//! The bodies, as `OpenAI` sends them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// When everything here was made: a fixed time, so that answers are the same in each run.
pub(crate) const CREATED: u32 = 1_700_000_000;

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
struct CompletionDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

impl Usage {
    pub(crate) fn new(input_tokens: u64, output_tokens: u64) -> Self {
        Self {
            prompt_tokens: input_tokens,
            completion_tokens: output_tokens,
            total_tokens: input_tokens + output_tokens,
            prompt_tokens_details: PromptDetails::default(),
            completion_tokens_details: CompletionDetails::default(),
        }
    }
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FinishReason {
    Stop,
    Length,
}

/// A whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct Completion<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u32,
    pub(crate) model: &'a str,
    pub(crate) choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Choice {
    pub(crate) index: u64,
    pub(crate) message: Message,
    pub(crate) logprobs: (),
    pub(crate) finish_reason: FinishReason,
}

#[derive(Debug, Serialize)]
pub(crate) struct Message {
    pub(crate) role: &'static str,
    pub(crate) content: String,
    pub(crate) refusal: (),
}

/// What a frame says of the usage.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(crate) enum ChunkUsage {
    /// Nothing; the field is not there.
    Absent,
    /// Null.
    Null,
    Count(Usage),
}

impl ChunkUsage {
    const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A frame of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct Chunk<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u32,
    pub(crate) model: &'a str,
    pub(crate) choices: Vec<ChunkChoice>,
    #[serde(skip_serializing_if = "ChunkUsage::is_absent")]
    pub(crate) usage: ChunkUsage,
}

#[derive(Debug, Serialize)]
pub(crate) struct ChunkChoice {
    pub(crate) index: u64,
    pub(crate) delta: Delta,
    pub(crate) logprobs: (),
    pub(crate) finish_reason: Option<FinishReason>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
}

/// `{"error":{...}}`
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody {
    error: Problem,
}

#[derive(Debug, Serialize)]
struct Problem {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

/// A request that gets no answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    retry_after_s: Option<u64>,
    body: ErrorBody,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, param: Option<&'static str>, code: Option<&'static str>, message: String) -> Self {
        Self { status, retry_after_s: None, body: ErrorBody { error: Problem { message, kind, param, code } } }
    }

    pub(crate) fn model_not_found(model: &str) -> Self {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model"), Some("model_not_found"), message)
    }

    pub(crate) fn invalid(param: Option<&'static str>, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", param, None, message)
    }

    pub(crate) fn rate_limited(retry_after_s: u64) -> Self {
        let message = "Rate limit reached: a knob asked for it.".to_owned();
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "requests", None, Some("rate_limit_exceeded"), message);
        Self { retry_after_s: Some(retry_after_s), ..refusal }
    }

    /// The failure that a knob asked for; a number that is no status is 500.
    pub(crate) fn failed(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, "server_error", None, None, "The server had an error: a knob asked for it.".to_owned())
    }

    /// What is told in the middle of a stream.
    pub(crate) fn into_body(self) -> ErrorBody {
        self.body
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
