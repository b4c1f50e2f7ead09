//! Every way a request can be refused, and the one place that turns it into an answer in `OpenAI`'s shape.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chassis::Problem;
use chassis::http::body::{is_too_large, timed_out};
use contracts::entitlements::{LimitPeriod, LimitScope};
use http::{HeaderValue, StatusCode, header};
use identity::AuthenticateError;
use identity::authenticator::MissingScope;
use llm::{ErrorBody, InvalidRequest, ProviderError};

const RETRY_SOON: Duration = Duration::from_secs(1);
const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const UNAVAILABLE: &str = "service_unavailable";

/// One variant per outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No credential.
    #[error("there is no credential")]
    MissingCredential,
    /// A credential that is not valid.
    #[error("the credential is not valid")]
    InvalidCredential,
    /// A credential that does not allow this.
    #[error("{0}")]
    MissingScope(String),
    /// A request that breaks a rule.
    #[error("{0}")]
    Invalid(#[from] InvalidRequest),
    /// A body that broke off, took too long or is too large.
    #[error("the body cannot be read")]
    Unreadable(StatusCode),
    /// A model that is not offered, or has no price.
    #[error("there is no such model")]
    ModelNotFound,
    /// A model that the organization's plan does not have.
    #[error("the plan does not have the model")]
    ModelNotInPlan,
    /// The wallet does not reach.
    #[error("the wallet does not reach")]
    InsufficientQuota,
    /// Too many requests, here or at the provider.
    #[error("too many requests")]
    RateLimited(Duration),
    /// Too many tokens in a minute.
    #[error("too many tokens")]
    TokensLimited(Duration),
    /// More of something than one organization may have here at once: others have what is left of it.
    #[error("the organization has too many {0} at once")]
    TooManyAtOnce(&'static str),
    /// More than may be spent in a period.
    #[error("a spend limit is reached")]
    SpendLimit(LimitScope, LimitPeriod, Duration),
    /// Something we need is away.
    #[error("{0} is not available")]
    Unavailable(&'static str),
    /// The provider cannot answer right now, and says for how long.
    #[error("the provider is not available")]
    ProviderUnavailable(Duration),
    /// The provider refused the request, in its own words if it had any.
    #[error("the provider refused with {0}")]
    Refused(StatusCode, Option<ProviderError>),
    /// The provider failed, in its own words.
    #[error("the provider failed and said why")]
    UpstreamError(ProviderError),
    /// The provider failed.
    #[error("the provider failed")]
    UpstreamFailed,
    /// The provider did not answer in time.
    #[error("the provider did not answer in time")]
    UpstreamTimeout,
    /// A fault of our own.
    #[error("{0}")]
    Internal(&'static str),
}

impl From<AuthenticateError> for ApiError {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Missing => Self::MissingCredential,
            AuthenticateError::Invalid => Self::InvalidCredential,
            AuthenticateError::Unavailable => Self::Unavailable("the check of credentials"),
        }
    }
}

impl From<MissingScope> for ApiError {
    fn from(error: MissingScope) -> Self {
        Self::MissingScope(error.to_string())
    }
}

/// A body that could not be read to its end.
impl From<axum::Error> for ApiError {
    fn from(error: axum::Error) -> Self {
        Self::Unreadable(match error {
            error if timed_out(&error) => StatusCode::REQUEST_TIMEOUT,
            error if is_too_large(&error) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        })
    }
}

impl ApiError {
    /// Status and body.
    fn parts(&self) -> (StatusCode, ErrorBody) {
        let invalid = |status, code, message: &str| (status, ErrorBody::new(INVALID, code, message));
        let server = |status, code, message: &str| (status, ErrorBody::new(SERVER, code, message));
        match self {
            Self::MissingCredential => {
                invalid(StatusCode::UNAUTHORIZED, "invalid_api_key", "You did not provide an API key: send it as Authorization: Bearer.")
            }
            Self::InvalidCredential => invalid(StatusCode::UNAUTHORIZED, "invalid_api_key", "Incorrect API key provided."),
            Self::MissingScope(message) => invalid(StatusCode::FORBIDDEN, "missing_scope", message),
            Self::Invalid(error) => {
                let body = ErrorBody::new(INVALID, "invalid_value", format!("{}: {}", error.param, error.message));
                (StatusCode::BAD_REQUEST, body.param(&error.param))
            }
            Self::Unreadable(StatusCode::PAYLOAD_TOO_LARGE) => {
                invalid(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "The body is larger than this service takes.")
            }
            Self::Unreadable(StatusCode::REQUEST_TIMEOUT) => {
                invalid(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body did not come in time.")
            }
            Self::Unreadable(status) => invalid(*status, "invalid_body", "The body broke off."),
            Self::ModelNotFound => {
                let (status, body) = invalid(StatusCode::NOT_FOUND, "model_not_found", "The model does not exist or is not offered here.");
                (status, body.param("model"))
            }
            Self::ModelNotInPlan => {
                let message = "Your organization's plan does not have this model; GET /v1/models lists those that it has.";
                let (status, body) = invalid(StatusCode::FORBIDDEN, "model_not_in_plan", message);
                (status, body.param("model"))
            }
            Self::InsufficientQuota => {
                let body = ErrorBody::new("insufficient_quota", "insufficient_quota", "The balance does not cover this request.");
                (StatusCode::PAYMENT_REQUIRED, body)
            }
            Self::RateLimited(_) => {
                let body = ErrorBody::new("requests", "rate_limit_exceeded", "Too many requests: try again later.");
                (StatusCode::TOO_MANY_REQUESTS, body)
            }
            Self::TokensLimited(_) => {
                let body = ErrorBody::new("tokens", "rate_limit_exceeded", "Too many tokens: try again later.");
                (StatusCode::TOO_MANY_REQUESTS, body)
            }
            Self::TooManyAtOnce(what) => {
                let message = format!("Your organization has too many {what} at once: try again soon.");
                (StatusCode::TOO_MANY_REQUESTS, ErrorBody::new("requests", "rate_limit_exceeded", message))
            }
            Self::SpendLimit(scope, period, _) => spend_limit(*scope, *period),
            Self::Unavailable(what) => {
                server(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, &format!("Try again soon: {what} is not available."))
            }
            Self::ProviderUnavailable(_) => {
                server(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "Try again later: the model's provider is not available.")
            }
            Self::Refused(status, error) => {
                let (status, body) = invalid(*status, "provider_refused", "The model's provider refused the request.");
                (status, error.clone().unwrap_or_default().over(body))
            }
            Self::UpstreamError(error) => {
                let (status, body) = Self::UpstreamFailed.parts();
                (status, error.clone().over(body))
            }
            Self::UpstreamFailed => server(StatusCode::BAD_GATEWAY, "upstream_failed", "The model's provider failed."),
            Self::UpstreamTimeout => {
                server(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "The model's provider did not answer in time.")
            }
            Self::Internal(_) => server(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side."),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(after) | Self::TokensLimited(after) | Self::SpendLimit(.., after) | Self::ProviderUnavailable(after) => {
                Some(*after)
            }
            Self::Unavailable(_) | Self::TooManyAtOnce(_) => Some(RETRY_SOON),
            _ => None,
        }
    }

    /// The body, also for an event in a stream.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.parts().1.to_bytes()
    }
}

/// A minute's limit is a rate, after which clients come back by themselves; that of a day or a month is money that is not there.
fn spend_limit(scope: LimitScope, period: LimitPeriod) -> (StatusCode, ErrorBody) {
    let (status, period) = match period {
        LimitPeriod::Minute => (StatusCode::TOO_MANY_REQUESTS, "minute"),
        LimitPeriod::Day => (StatusCode::PAYMENT_REQUIRED, "day"),
        LimitPeriod::Month => (StatusCode::PAYMENT_REQUIRED, "month"),
    };
    let whose = match scope {
        LimitScope::Organization => "your organization",
        LimitScope::User => "you",
        LimitScope::ApiKey => "this API key",
        LimitScope::Model => "this model",
        LimitScope::Tag => "a tag of this request",
    };
    let message = format!("What may be spent for {whose} in a {period} does not cover this request.");
    (status, ErrorBody::new("insufficient_quota", "spend_limit_exceeded", message))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Internal(reason) = self {
            tracing::error!(error.message = reason, "a request failed for a reason of our own");
        }
        let mut response = respond(self.parts().0, self.to_bytes(), self.retry_after());
        if matches!(self, Self::MissingCredential | Self::InvalidCredential) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A refusal of the edge, before or behind the handlers: clients of this API parse one shape only.
#[must_use]
pub fn of_the_edge(problem: &Problem) -> Response {
    let status = problem.status();
    let kind = if status.is_server_error() { SERVER } else { INVALID };
    let code = if status == StatusCode::SERVICE_UNAVAILABLE { UNAVAILABLE } else { problem.code() };
    let message = format!("{}.", problem.body().title);
    respond(status, ErrorBody::new(kind, code, message).to_bytes(), problem.retry_after_header())
}

fn respond(status: StatusCode, body: Bytes, retry_after: Option<Duration>) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(after) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs() + u64::from(after.subsec_nanos() > 0)));
    }
    response
}
