//! What every request passes: its id, its span, the limits, and a safe end for a panic.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::sync::Semaphore;
use tower_http::limit::RequestBodyLimitLayer;
use tracing::{Instrument, Span, field};

use super::HttpConfig;
use super::body::{Deadlined, Guarded};
use super::proxies::{Network, client_ip};
use super::strangers::StrangersBodies;
use crate::clock::Clock;
use crate::problem::Problem;
use crate::random::Random;
use crate::telemetry::propagation::{TRACEPARENT, continue_from};

/// The header of the request id, in and out.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const SECURITY_HEADERS: [(&str, &str); 4] = [
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
];

/// What the edge found out about a request; an extension of it.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// The id that the response carries: the client's own, where it is sane, else a new one.
    pub request_id: String,
    /// The client's address, proxies accounted for.
    pub client_ip: IpAddr,
}

/// The shape in which the edge's own refusals are told: problem details, unless the service speaks another API.
pub type Render = fn(&Problem) -> Response;

/// Problem details (RFC 9457).
#[must_use]
pub fn as_problem(problem: &Problem) -> Response {
    problem.clone().into_response()
}

#[derive(Clone)]
struct Edge {
    permits: Arc<Semaphore>,
    strangers: StrangersBodies,
    timeout: Duration,
    body_timeout: Duration,
    trusted: Arc<[Network]>,
    clock: Clock,
    random: Random,
    render: Render,
}

/// Puts the edge around a router.
pub fn wrap(router: Router, config: &HttpConfig, render: Render) -> Router {
    let edge = Edge {
        permits: Arc::new(Semaphore::new(config.max_concurrency)),
        strangers: StrangersBodies::default(),
        timeout: config.timeout.0,
        body_timeout: config.body_timeout.0,
        trusted: config.trusted_proxies.0.clone().into(),
        clock: Clock::system(),
        random: Random::system(),
        render,
    };
    router
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(config.body_limit))
        .fallback(move || async move { render(&Problem::not_found()) })
        .method_not_allowed_fallback(move || async move {
            render(&Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not answer that method"))
        })
        .layer(from_fn_with_state(edge, pass))
}

async fn pass(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip());
    let context = RequestContext { request_id: request_id(&request, &edge), client_ip: client_ip(peer, request.headers(), &edge.trusted) };
    let span = span(&request, &context);
    let (method, route) = (method(&request), route(&request));
    request.extensions_mut().insert(context.clone());
    request.extensions_mut().insert(edge.strangers.clone());
    let mut response = admit(&edge, request, next).instrument(span.clone()).await;
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    let seconds = started.elapsed().as_secs_f64();
    metrics::histogram!("http_server_request_duration_seconds", "method" => method, "route" => route, "status" => status.to_string())
        .record(seconds);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&context.request_id) {
        headers.entry(REQUEST_ID.clone()).or_insert(id);
    }
    for (name, value) in SECURITY_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Takes a place among the requests in flight and runs the request in time; a panic becomes a 500. Probes need no place: that all
/// places are taken is no reason to restart the process, and that it is ready is found out once a second at most, however many ask.
async fn admit(edge: &Edge, request: Request, next: Next) -> Response {
    let permit = Arc::clone(&edge.permits).try_acquire_owned().ok();
    if permit.is_none() && !is_probe(&route(&request)) {
        return (edge.render)(&shed());
    }
    let request = request.map(|body| Deadlined::wrap(body, edge.body_timeout));
    let run = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(edge.timeout, run).await {
        Ok(Ok(response)) if is_bare_too_large(&response) => (edge.render)(&payload_too_large()),
        Ok(Ok(response)) => response.map(|body| Guarded::wrap(body, permit)),
        Ok(Err(panic)) => {
            let message = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
            tracing::error!(panic.message = message.unwrap_or_default(), "a request panicked");
            (edge.render)(&Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side"))
        }
        Err(_) => (edge.render)(&Problem::unavailable("an answer in time")),
    }
}

/// 503: all places are taken.
pub(super) fn shed() -> Problem {
    metrics::counter!("http_server_shed_total").increment(1);
    Problem::unavailable("a free place for this request")
}

/// Whether this is the limit layer's own answer, which is plain text; a handler has already said it in its shape.
fn is_bare_too_large(response: &Response) -> bool {
    let is_text = || response.headers().get(http::header::CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/"));
    response.status() == StatusCode::PAYLOAD_TOO_LARGE && is_text()
}

/// 413: the body is larger than this service takes.
#[must_use]
pub fn payload_too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "The body is larger than this service takes")
}

/// A client's own id is kept when it is short and plain; anything else gets a new one.
fn request_id(request: &Request, edge: &Edge) -> String {
    let sane =
        |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|text| sane(text));
    given.map_or_else(|| edge.random.uuid_v7(&edge.clock).simple().to_string(), ToOwned::to_owned)
}

fn is_probe(route: &str) -> bool {
    matches!(route, "/health" | "/ready" | "/metrics")
}

/// The method, as OpenTelemetry's conventions want it: one that is not known is `_OTHER`, because clients can invent methods and each
/// would be a time series of its own [trap 19].
fn method(request: &Request) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| request.method() == *known).unwrap_or("_OTHER")
}

fn route(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned()
}

/// The server span, by OpenTelemetry's HTTP conventions.
fn span(request: &Request, context: &RequestContext) -> Span {
    let route = route(request);
    if is_probe(&route) {
        return Span::none();
    }
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{} {route}", method(request)),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method(request),
        http.route = route,
        http.response.status_code = field::Empty,
        url.path = request.uri().path(),
        client.address = %context.client_ip,
        request.id = context.request_id,
    );
    if let Some(parent) = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
        continue_from(&span, parent);
    }
    span
}
