//! Errors as RFC 9457 problem details: the one shape in which a service says no.

use std::error::Error;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A field of the request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The path of the field, such as `scopes[1]`.
    pub field: String,
    /// What the field must be.
    pub rule: String,
}

/// The body of a problem response (`application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// `urn:trivet:problem:<code>` (RFC 9457 section 3.1.1).
    #[serde(rename = "type")]
    pub kind: String,
    /// A sentence for people; the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the problem, for programs.
    pub code: String,
    /// What happened this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The fields at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A problem on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    body: ProblemBody,
    retry_after: Option<Duration>,
    challenge: Option<&'static str>,
}

impl Problem {
    /// A problem with a status, a stable code and a title.
    #[must_use]
    pub fn new(status: StatusCode, code: &str, title: &str) -> Self {
        let body = ProblemBody {
            kind: format!("urn:trivet:problem:{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: None,
            errors: Vec::new(),
        };
        Self(Box::new(Inner { status, body, retry_after: None, challenge: None }))
    }

    /// 400 with a code of its own.
    #[must_use]
    pub fn bad_request(code: &str, title: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, title)
    }

    /// 422: one field breaks a rule.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", "The request is not valid").field(field, rule)
    }

    /// 401 with the challenge that RFC 6750 section 3 asks for.
    #[must_use]
    pub fn unauthorized() -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "The credential is missing or not valid");
        problem.0.challenge = Some("Bearer");
        problem
    }

    /// 403.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The credential does not allow this")
    }

    /// 404, also for what exists and belongs to somebody else.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here")
    }

    /// 409.
    #[must_use]
    pub fn conflict(code: &str, title: &str) -> Self {
        Self::new(StatusCode::CONFLICT, code, title)
    }

    /// 503: a dependency is away; the client is told when to try again.
    #[must_use]
    pub fn unavailable(dependency: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service cannot answer right now")
            .detail(format!("{dependency} is not available"))
            .retry_after(Duration::from_secs(1))
    }

    /// 500: logs the error with its causes once, and shows nothing of it.
    #[must_use]
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain = format!("{chain}: {cause}");
            source = cause.source();
        }
        tracing::error!(error.message = chain, "a request failed for a reason of our own");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side")
    }

    /// Says what happened this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.body.detail = Some(detail.into());
        self
    }

    /// Names a field and the rule it breaks.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, rule: impl Into<String>) -> Self {
        self.0.body.errors.push(FieldError { field: field.into(), rule: rule.into() });
        self
    }

    /// Tells when to try again; whole seconds, at least one.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.body.code
    }

    /// When to try again, if that is said; what the `Retry-After` header will be, in whole seconds of at least one.
    #[must_use]
    pub fn retry_after_header(&self) -> Option<Duration> {
        self.0.retry_after.map(|after| Duration::from_secs(after.as_secs().max(1)))
    }

    /// The body as it will be sent.
    #[must_use]
    pub fn body(&self) -> &ProblemBody {
        &self.0.body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let json = serde_json::to_vec(&self.0.body).unwrap_or_default();
        let mut response = (self.0.status, json).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after_header() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        if let Some(challenge) = self.0.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        problem.into_response()
    }
}
