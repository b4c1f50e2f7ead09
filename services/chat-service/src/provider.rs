//! The model provider over HTTP. The URL is from the configuration alone; what clients send never becomes part of it [trap 18].

use std::time::Duration;

use bytes::Bytes;
use chassis::telemetry::{self, propagation::TRACEPARENT};
use chassis::{Clock, ExposeSecret, SecretString};
use chrono::DateTime;
use http::{HeaderMap, HeaderName, StatusCode, header};
use llm::ProviderError;
use reqwest::Response;

use crate::config::ProviderConfig;
use crate::error::ApiError;

/// The most of an error's body that is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_hours(1);

/// The provider; cheap to clone.
#[derive(Debug, Clone)]
pub struct Provider {
    client: reqwest::Client,
    url: String,
    api_key: Option<SecretString>,
    forward: Vec<HeaderName>,
    clock: Clock,
}

impl Provider {
    /// The provider of the configuration.
    ///
    /// # Errors
    /// When TLS cannot be set up or a header's name is malformed.
    pub fn new(config: &ProviderConfig, clock: Clock) -> anyhow::Result<Self> {
        let client = chassis::http::client::builder().connect_timeout(config.connect_timeout.0).build()?;
        let forward = config.forward_headers.0.iter().map(|name| name.parse()).collect::<Result<Vec<HeaderName>, _>>()?;
        let never =
            [header::AUTHORIZATION, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::HOST, header::TRANSFER_ENCODING, header::COOKIE];
        anyhow::ensure!(!forward.iter().any(|name| never.contains(name)), "CHAT_FORWARD_HEADERS names a header that is never passed on");
        let url = format!("{}/chat/completions", config.base_url.trim_end_matches('/'));
        Ok(Self { client, url, api_key: config.api_key.clone(), forward, clock })
    }

    /// Those of the client's headers that the configuration lets through.
    #[must_use]
    pub fn forwarded(&self, headers: &HeaderMap) -> HeaderMap {
        self.forward.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
    }

    /// Sends a completion; answers when the provider's headers are there and good.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn send(&self, body: Vec<u8>, request_id: &str, headers: HeaderMap) -> Result<Response, ApiError> {
        let mut request = self
            .client
            .post(&self.url)
            .headers(headers)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-request-id", request_id);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key.expose_secret());
        }
        if let Some(traceparent) = telemetry::current_traceparent() {
            request = request.header(TRACEPARENT, traceparent);
        }
        let response = request.body(body).send().await.map_err(|error| {
            let nobody = error.is_connect();
            tracing::warn!(error.message = %error.without_url(), "the provider cannot be reached");
            if nobody { ApiError::Unavailable("the model's provider") } else { ApiError::UpstreamFailed }
        })?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response, &self.clock).await) }
    }
}

/// What a refusal of the provider means for the client. What is our own fault is never the client's [trap 9].
async fn refusal(response: Response, clock: &Clock) -> ApiError {
    let status = response.status();
    let retry_after = retry_after(response.headers(), clock);
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::TOO_MANY_REQUESTS => {
            let error = whole_body(response, MAX_ERROR_BYTES).await.map(|body| ProviderError::read(&body));
            match error {
                Ok(Some(error)) if error.is_about_our_account() => our_own_fault(status),
                _ if status == StatusCode::TOO_MANY_REQUESTS => ApiError::RateLimited(retry_after),
                Ok(error) => ApiError::Refused(status, error),
                Err(error) => error,
            }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PAYMENT_REQUIRED => our_own_fault(status),
        StatusCode::NOT_FOUND => not_known_there(status),
        StatusCode::SERVICE_UNAVAILABLE => ApiError::ProviderUnavailable(retry_after),
        _ => {
            tracing::warn!(http.response.status_code = status.as_u16(), "the provider failed");
            ApiError::UpstreamFailed
        }
    }
}

/// What an error means that comes behind a good status: in a stream, or instead of a completion.
#[must_use]
pub fn late_error(data: &[u8]) -> ApiError {
    match ProviderError::read(data) {
        Some(error) if error.is_about_our_account() => our_own_fault(StatusCode::OK),
        Some(error) => ApiError::UpstreamError(error),
        None => ApiError::UpstreamFailed,
    }
}

fn our_own_fault(status: StatusCode) -> ApiError {
    tracing::error!(http.response.status_code = status.as_u16(), "the provider refuses our own account: look at its key and its quota");
    ApiError::Unavailable("the model's provider")
}

/// Clients choose among the models of the configuration: what the provider does not find is not of their choosing.
fn not_known_there(status: StatusCode) -> ApiError {
    tracing::error!(
        http.response.status_code = status.as_u16(),
        "the provider does not find the model: look at OPENAI_BASE_URL and CHAT_MODELS"
    );
    ApiError::Unavailable("the model's provider")
}

/// Seconds, or a date (RFC 9110 section 10.2.3); dates are sent in one form only, which is RFC 2822's too.
fn retry_after(headers: &HeaderMap, clock: &Clock) -> Duration {
    let text = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let until = |date: DateTime<_>| (date.to_utc() - clock.now()).to_std().unwrap_or(Duration::ZERO);
    let seconds = text.parse().map(Duration::from_secs).ok();
    let wait = seconds.or_else(|| DateTime::parse_from_rfc2822(text).ok().map(until));
    wait.unwrap_or(DEFAULT_RETRY).min(LONGEST_RETRY)
}

/// The whole body, if it is no larger than `limit` bytes.
///
/// # Errors
/// When it is larger, or breaks off.
pub async fn whole_body(mut response: Response, limit: usize) -> Result<Bytes, ApiError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| ApiError::UpstreamFailed)? {
        if body.len() + chunk.len() > limit {
            return Err(ApiError::UpstreamFailed);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}
