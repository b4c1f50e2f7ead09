//! A client for the service under test: one call, one answer with status, headers and JSON.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::contract::Contract;

const JSON: &str = "application/json";

/// A client of one listener.
#[derive(Debug, Clone)]
pub struct TestClient {
    inner: reqwest::Client,
    address: std::net::SocketAddr,
    base: String,
    headers: Vec<(String, String)>,
    contract: Option<Arc<Contract>>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body as JSON; null when it is empty or not JSON.
    pub json: Value,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The answer itself, when its status is the expected one.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    #[expect(clippy::must_use_candidate, reason = "asserting is use enough")]
    #[expect(clippy::return_self_not_must_use, reason = "asserting is use enough")]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// A header's text, empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A string field of the body, empty when absent.
    #[must_use]
    pub fn string(&self, field: &str) -> String {
        self.json[field].as_str().unwrap_or_default().to_owned()
    }
}

impl TestClient {
    /// A client of the listener at this address.
    ///
    /// # Panics
    /// When no HTTP client can be made.
    #[must_use]
    pub fn new(address: std::net::SocketAddr) -> Self {
        let inner = chassis::http::client::builder().build().expect("an HTTP client");
        Self { inner, address, base: format!("http://{address}"), headers: Vec::new(), contract: None }
    }

    /// The same client of a listener whose answers are all as this document says: the test fails by one that is not.
    #[must_use]
    pub fn held_to(self, contract: &Arc<Contract>) -> Self {
        Self { contract: Some(contract.clone()), ..self }
    }

    /// Where it asks.
    #[must_use]
    pub const fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// The same client with a bearer credential.
    #[must_use]
    pub fn bearer(&self, credential: &str) -> Self {
        self.header("authorization", format!("Bearer {credential}"))
    }

    /// The same client with one more header on each request.
    #[must_use]
    pub fn header(&self, name: &str, value: impl Into<String>) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.into()));
        client
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    /// GET, answered by somebody who takes nothing of the body yet.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn begin(&self, path: &str) -> reqwest::Response {
        let request = self.inner.get(format!("{}{path}", self.base));
        let request = self.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        request.send().await.expect("an answer")
    }

    /// Any request; a body is sent as JSON unless a header says otherwise.
    ///
    /// # Panics
    /// When there is no answer, or when it is not as the document says that the client holds it to.
    pub async fn send(&self, method: Method, path: &str, body: Option<String>) -> Answer {
        let mut request = self.inner.request(method.clone(), format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let named = self.headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
        if let Some(body) = &body {
            if named.is_none() {
                request = request.header("content-type", JSON);
            }
            request = request.body(body.clone());
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("a whole answer");
        let answer = Answer { status, headers, json: serde_json::from_str(&text).unwrap_or(Value::Null), text };
        if let Some(contract) = &self.contract {
            contract.hold(&method, path, body.as_deref().map(|body| (named.unwrap_or(JSON), body)), &answer);
        }
        answer
    }
}
