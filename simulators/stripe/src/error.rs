//! Stripe's errors: a status and `{"error": {…}}`.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// An answer that is not a success.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// The `error` object.
    pub(crate) error: Map<String, Value>,
    /// Whether nothing of the request stays. A card that was refused leaves its charge behind.
    pub(crate) takes_back: bool,
}

impl Failure {
    fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        let mut error = Map::new();
        error.insert("message".to_owned(), Value::String(message.into()));
        error.insert("type".to_owned(), kind.into());
        Self { status, error, takes_back: status != StatusCode::PAYMENT_REQUIRED }
    }

    /// The request makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A parameter that must be there is not.
    pub(crate) fn missing(name: &str) -> Self {
        let name = bracketed(name);
        Self::invalid(format!("Missing required param: {name}.")).code("parameter_missing").param(&name)
    }

    /// A parameter that the endpoint does not know.
    pub(crate) fn unknown(name: &str) -> Self {
        Self::invalid(format!("Received unknown parameter: {name}")).code("parameter_unknown").param(name)
    }

    /// No such object. Named in a parameter, it is a 400; in the path (`param` is `id`), a 404.
    pub(crate) fn no_such(kind: &str, id: &str, param: &str) -> Self {
        let status = if param == "id" { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
        let message = format!("No such {}: '{id}'", kind.replace(['_', '.'], " "));
        Self::new(status, "invalid_request_error", message).code("resource_missing").param(&bracketed(param))
    }

    /// No such path.
    pub(crate) fn no_such_route(method: &str, path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", format!("Unrecognized request URL ({method}: {path})."))
    }

    /// No key, or one that is none of a test account.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
    }

    /// A card that was refused.
    pub(crate) fn card(code: &str, decline_code: Option<&str>, message: &str) -> Self {
        let failure = Self::new(StatusCode::PAYMENT_REQUIRED, "card_error", message).code(code);
        match decline_code {
            Some(decline) => failure.with("decline_code", decline.into()),
            None => failure,
        }
    }

    /// The key was used with other parameters.
    pub(crate) fn idempotency(key: &str) -> Self {
        let message = format!(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. \
             Try using a key other than '{key}' if you meant to execute a different request."
        );
        Self::new(StatusCode::BAD_REQUEST, "idempotency_error", message)
    }

    /// A request with the same key has not ended.
    pub(crate) fn in_progress(key: &str) -> Self {
        let message = format!("There is currently another in-progress request using this Idempotent Key '{key}'.");
        Self::new(StatusCode::CONFLICT, "idempotency_error", message).code("idempotency_key_in_use")
    }

    /// Stripe's own fault.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "api_error", "An unknown error occurred")
    }

    /// Too many requests.
    pub(crate) fn rate_limited() -> Self {
        let message = "Request rate limit exceeded. You can learn more about rate limits here https://stripe.com/docs/rate-limits.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "invalid_request_error", message).code("rate_limit")
    }

    /// The same, with a machine-readable code.
    pub(crate) fn code(self, code: &str) -> Self {
        let url = format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-"));
        self.with("code", code.into()).with("doc_url", url.into())
    }

    /// The same, about a parameter.
    pub(crate) fn param(self, name: &str) -> Self {
        self.with("param", name.into())
    }

    /// The same, with one more field.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.error.insert(name.to_owned(), value);
        self
    }

    /// The body.
    pub(crate) fn body(&self) -> Value {
        json!({ "error": self.error })
    }
}

/// `a.b.0` is `a[b][0]` to a caller.
pub(crate) fn bracketed(path: &str) -> String {
    let mut parts = path.split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| format!("{name}[{part}]"))
}
