//! A request to Stripe of our own making. async-stripe's builders of checkout sessions and invoices bring every option there is, tens
//! of thousands of lines of them; what we send is a dozen fields, and a contract test holds each against Stripe's specification.

use std::fmt::Display;

use reqwest::Method;
use url::form_urlencoded::Serializer;

/// What to send: once with the same key, however often.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Below `/v1`.
    pub path: String,
    form: Vec<(String, String)>,
    key: Option<String>,
}

impl Call {
    /// Reads something.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), form: Vec::new(), key: None }
    }

    /// Does something; `key` names the operation and was stored before the first try [B-63].
    #[must_use]
    pub fn post(path: impl Into<String>, key: impl Into<String>) -> Self {
        Self { method: Method::POST, path: path.into(), form: Vec::new(), key: Some(key.into()) }
    }

    /// Takes something away.
    #[must_use]
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(path) }
    }

    /// Adds a field, by the name that it has in a form (`line_items[0][quantity]`).
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.form.push((name.into(), format!("{value}")));
        self
    }

    /// Adds a field that may be absent.
    #[must_use]
    pub fn with_some(self, name: impl Into<String>, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds the name of one of our own things, by which the object and its events are recognized.
    #[must_use]
    pub fn metadata(self, name: &str, value: impl Display) -> Self {
        self.with(format!("metadata[{name}]"), value)
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(super) fn query(&self) -> String {
        if self.method == Method::GET && !self.form.is_empty() { format!("?{}", self.encoded()) } else { String::new() }
    }

    pub(super) fn body(&self) -> Option<String> {
        (self.method == Method::POST).then(|| self.encoded())
    }

    fn encoded(&self) -> String {
        Serializer::new(String::new()).extend_pairs(&self.form).finish()
    }
}

/// A path without the ids in it, for telemetry.
pub(super) fn route(path: &str) -> String {
    let part = |part: &str| {
        if part.contains('_') && part.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()) {
            "{id}".to_owned()
        } else {
            part.to_owned()
        }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_post_are_its_body_and_those_of_a_get_its_query() {
        let post = Call::post("/refunds", "k").with("amount", 5).with_some("reason", None::<&str>).metadata("a", "b c");
        assert_eq!((post.query().as_str(), post.body().as_deref()), ("", Some("amount=5&metadata%5Ba%5D=b+c")));
        let get = Call::get("/invoices/in_1").with("expand[]", "payments");
        assert_eq!((get.query().as_str(), get.body()), ("?expand%5B%5D=payments", None));
    }

    #[test]
    fn telemetry_has_no_ids() {
        assert_eq!(route("/checkout/sessions/cs_test_a1B2/expire"), "/checkout/sessions/{id}/expire");
        assert_eq!(route("/billing_portal/sessions"), "/billing_portal/sessions");
    }
}
