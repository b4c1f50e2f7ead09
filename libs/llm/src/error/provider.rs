//! A provider's error, as far as it is a client's business. What else stands in it is not: names of our account, what a provider behind
//! the provider said.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ErrorBody;

/// More bytes than any sentence for people has.
const MAX_MESSAGE: usize = 4096;
/// More bytes than any name has.
const MAX_NAME: usize = 256;
/// Names of what has happened to an account: ours.
const OF_AN_ACCOUNT: [&str; 4] = ["billing_hard_limit_reached", "billing_not_active", "budget_exceeded", "insufficient_quota"];
/// What Anthropic says of one instead of a name.
const CREDIT_USED_UP: &str = "credit balance is too low";

/// The four fields of `OpenAI`'s error object, where they are of their type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderError {
    message: Option<String>,
    kind: Option<String>,
    param: Option<String>,
    code: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    error: Option<Value>,
}

impl ProviderError {
    /// Reads a body or an event; none, when it holds no error.
    #[must_use]
    pub fn read(data: &[u8]) -> Option<Self> {
        match serde_json::from_slice::<Body>(data).ok()?.error? {
            Value::Object(fields) => Some(Self {
                message: text(&fields, "message", MAX_MESSAGE),
                kind: text(&fields, "type", MAX_NAME),
                param: text(&fields, "param", MAX_NAME),
                code: text(&fields, "code", MAX_NAME),
            }),
            Value::String(message) => Some(Self { message: Some(bounded(&message, MAX_MESSAGE)), ..Self::default() }),
            _ => Some(Self::default()),
        }
    }

    /// Whether it is about our account, which no client can help: its quota is used up, or it is not in order. Some providers say so
    /// with the statuses of a bad request and of limits that end by themselves.
    #[must_use]
    pub fn is_about_our_account(&self) -> bool {
        let is_named = |name: &Option<String>| name.as_deref().is_some_and(|name| OF_AN_ACCOUNT.contains(&name));
        let is_told = self.message.as_deref().is_some_and(|message| message.to_ascii_lowercase().contains(CREDIT_USED_UP));
        is_named(&self.code) || is_named(&self.kind) || is_told
    }

    /// The error for a client; what is not said is as in `default`.
    #[must_use]
    pub fn over(self, mut default: ErrorBody) -> ErrorBody {
        let error = &mut default.error;
        error.message = self.message.unwrap_or_else(|| std::mem::take(&mut error.message));
        error.kind = self.kind.unwrap_or_else(|| std::mem::take(&mut error.kind));
        error.param = self.param.or_else(|| error.param.take());
        error.code = self.code.or_else(|| error.code.take());
        default
    }
}

fn text(fields: &Map<String, Value>, name: &str, most: usize) -> Option<String> {
    let text = fields.get(name)?.as_str()?;
    Some(bounded(text, most)).filter(|text| !text.is_empty())
}

/// No more than so many bytes, cut between two characters.
fn bounded(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rebuilt(body: &str) -> String {
        let default = ErrorBody::new("invalid_request_error", "provider_refused", "Refused.");
        let body = ProviderError::read(body.as_bytes()).map_or(default.clone(), |error| error.over(default)).to_bytes();
        String::from_utf8(body.to_vec()).expect("what the test gives is valid")
    }

    /// [trap 18]
    #[test]
    fn of_a_providers_error_the_four_known_fields_reach_a_client_and_nothing_else() {
        let openai = r#"{"error":{"message":"too long","type":"t","param":"messages","code":"context_length_exceeded"}}"#;
        assert_eq!(rebuilt(openai), openai);
        let openrouter = r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"secret","provider_name":"x"}},"user_id":"org_ours"}"#;
        let expected =
            r#"{"error":{"message":"Provider returned error","type":"invalid_request_error","param":null,"code":"provider_refused"}}"#;
        assert_eq!(rebuilt(openrouter), expected);
        let odd = r#"{"error":{"message":{"a":1},"type":["t"],"param":7,"code":""}}"#;
        let default = r#"{"error":{"message":"Refused.","type":"invalid_request_error","param":null,"code":"provider_refused"}}"#;
        for none in [odd, "<html>", "{}", r#"{"error":null}"#, r#"{"error":7}"#, "[]", "", r#"{"error":{},"error":{"message":"m"}}"#] {
            assert_eq!(rebuilt(none), default, "{none}");
        }
        assert_eq!(rebuilt(r#"{"error":"plain"}"#), default.replace("Refused.", "plain"));
    }

    /// [trap 14]
    #[test]
    fn no_field_is_longer_than_it_may_be() {
        let long = "é".repeat(5_000);
        let error = ProviderError::read(format!(r#"{{"error":{{"message":"a{long}","code":"{long}"}}}}"#).as_bytes()).expect("an error");
        assert_eq!((error.message.map(|text| text.len()), error.code.map(|text| text.len())), (Some(MAX_MESSAGE - 1), Some(MAX_NAME)));
    }

    /// [trap 9]
    #[test]
    fn what_is_about_our_account_is_told_by_code_type_or_anthropics_words_and_nothing_else_is() {
        for name in OF_AN_ACCOUNT {
            for body in [format!(r#"{{"error":{{"code":"{name}"}}}}"#), format!(r#"{{"error":{{"type":"{name}","code":"400"}}}}"#)] {
                assert!(ProviderError::read(body.as_bytes()).is_some_and(|error| error.is_about_our_account()), "{body}");
            }
        }
        let anthropic =
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#;
        assert!(ProviderError::read(anthropic.as_bytes()).is_some_and(|error| error.is_about_our_account()));
        for body in [r#"{"error":{"code":"rate_limit_exceeded","message":"insufficient_quota"}}"#, r#"{"error":"insufficient_quota"}"#, ""]
        {
            assert!(!ProviderError::read(body.as_bytes()).is_some_and(|error| error.is_about_our_account()), "{body}");
        }
    }
}
