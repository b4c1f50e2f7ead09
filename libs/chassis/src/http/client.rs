//! The HTTP client that services use among themselves: bounded in time, and it carries the trace on.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};

use crate::telemetry::propagation::{TRACEPARENT, current_traceparent};

/// A client for one base URL; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: reqwest::Client,
    base: String,
}

/// Installs ring as the provider of TLS for the process, once; no client can be made before.
pub fn install_tls() {
    // Fails when it is installed already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client builder with our defaults: connect within a second, no redirects, no proxy from the environment, `TCP_NODELAY`.
pub fn builder() -> reqwest::ClientBuilder {
    install_tls();
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(1))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tcp_nodelay(true)
}

impl Client {
    /// A client for the base URL, each request bounded by `timeout` in all.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(base: &str, timeout: Duration) -> Result<Self, reqwest::Error> {
        let inner = builder().timeout(timeout).build()?;
        Ok(Self { inner, base: base.trim_end_matches('/').to_owned() })
    }

    /// A request to a path of the base URL, with the current span's `traceparent`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.inner.request(method, format!("{}{path}", self.base));
        match current_traceparent() {
            Some(traceparent) => request.header(TRACEPARENT, traceparent),
            None => request,
        }
    }
}
