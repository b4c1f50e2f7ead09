//! Errors in `OpenAI`'s shape.

mod provider;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use provider::ProviderError;

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
}
