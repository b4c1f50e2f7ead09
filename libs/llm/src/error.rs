//! Errors in `OpenAI`'s shape.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// `{"error": {…}}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// A sentence for people.
    pub message: String,
    /// The class of the error, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The parameter at fault.
    pub param: Option<String>,
    /// The stable name of the error, for programs.
    pub code: Option<String>,
}

impl ErrorBody {
    /// An error of a class, with a code.
    #[must_use]
    pub fn new(kind: &str, code: &str, message: impl Into<String>) -> Self {
        Self { error: ErrorDetail { message: message.into(), kind: kind.to_owned(), param: None, code: Some(code.to_owned()) } }
    }

    /// Names the parameter at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.error.param = Some(param.into());
        self
    }

    /// As a JSON body.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        // Strings and options only: there is nothing that cannot be written.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// Whether a provider's body is an error in this shape.
#[must_use]
pub fn is_error_body(body: &[u8]) -> bool {
    serde_json::from_slice::<Probe>(body).is_ok_and(|probe| probe.error.is_some())
}

#[derive(Deserialize)]
struct Probe {
    error: Option<serde::de::IgnoredAny>,
}

/// Whether a provider's body says that the quota of an account is used up. It comes with 429, as limits do that end by themselves.
#[must_use]
pub fn is_quota_used_up(body: &[u8]) -> bool {
    let named = |field: &Option<Value>| field.as_ref().and_then(Value::as_str) == Some("insufficient_quota");
    serde_json::from_slice::<Quota>(body).is_ok_and(|quota| named(&quota.error.code) || named(&quota.error.kind))
}

#[derive(Deserialize)]
struct Quota {
    error: QuotaDetail,
}

#[derive(Deserialize)]
struct QuotaDetail {
    #[serde(default)]
    code: Option<Value>,
    #[serde(default, rename = "type")]
    kind: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_exactly_the_four_fields_that_openai_clients_parse() {
        let body = ErrorBody::new("invalid_request_error", "invalid_api_key", "No.").param("model");
        assert_eq!(
            String::from_utf8(body.to_bytes().to_vec()).expect("what the test gives is valid"),
            r#"{"error":{"message":"No.","type":"invalid_request_error","param":"model","code":"invalid_api_key"}}"#
        );
    }

    #[test]
    fn a_used_up_quota_is_told_by_code_or_type_and_nothing_else_is_one() {
        for body in [r#"{"error":{"code":"insufficient_quota"}}"#, r#"{"error":{"type":"insufficient_quota","code":null}}"#] {
            assert!(is_quota_used_up(body.as_bytes()), "{body}");
        }
        for body in [r#"{"error":{"code":"rate_limit_exceeded","message":"insufficient_quota"}}"#, r#"{"error":"insufficient_quota"}"#, ""]
        {
            assert!(!is_quota_used_up(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn only_an_object_with_an_error_is_an_error_body() {
        assert!(is_error_body(br#"{"error":{"message":"m"}}"#));
        assert!(is_error_body(br#"{"error":"plain"}"#));
        for other in ["{}", r#"{"error":null}"#, "<html>", "[]", ""] {
            assert!(!is_error_body(other.as_bytes()), "{other}");
        }
    }
}
