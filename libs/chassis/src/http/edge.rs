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
use super::body::Guarded;
use super::proxies::{Network, client_ip};
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

#[derive(Clone)]
struct Edge {
    permits: Arc<Semaphore>,
    timeout: Duration,
    trusted: Arc<[Network]>,
    clock: Clock,
    random: Random,
}

/// Puts the edge around a router.
pub fn wrap(router: Router, config: &HttpConfig) -> Router {
    let edge = Edge {
        permits: Arc::new(Semaphore::new(config.max_concurrency)),
        timeout: config.timeout.0,
        trusted: config.trusted_proxies.0.clone().into(),
        clock: Clock::system(),
        random: Random::system(),
    };
    router
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(config.body_limit))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not answer that method")
        })
        .layer(from_fn_with_state(edge, pass))
}

async fn pass(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip());
    let context = RequestContext { request_id: request_id(&request, &edge), client_ip: client_ip(peer, request.headers(), &edge.trusted) };
    let span = span(&request, &context);
    let (method, route) = (request.method().clone(), route(&request));
    request.extensions_mut().insert(context.clone());
    let mut response = admit(&edge, request, next).instrument(span.clone()).await;
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    let seconds = started.elapsed().as_secs_f64();
    metrics::histogram!("http_server_request_duration_seconds", "method" => method.to_string(), "route" => route, "status" => status.to_string())
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

/// Takes a place among the requests in flight and runs the request in time; a panic becomes a 500.
async fn admit(edge: &Edge, request: Request, next: Next) -> Response {
    let Ok(permit) = Arc::clone(&edge.permits).try_acquire_owned() else {
        metrics::counter!("http_server_shed_total").increment(1);
        return Problem::unavailable("a free place for this request").into_response();
    };
    let run = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(edge.timeout, run).await {
        Ok(Ok(response)) => {
            let (parts, body) = response.into_parts();
            let body = if parts.status == StatusCode::PAYLOAD_TOO_LARGE && !parts.headers.contains_key("content-encoding") {
                return too_large(parts.headers.get("content-type"), body);
            } else {
                Guarded::wrap(body, permit)
            };
            Response::from_parts(parts, body)
        }
        Ok(Err(panic)) => {
            let message = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
            tracing::error!(panic.message = message.unwrap_or_default(), "a request panicked");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side").into_response()
        }
        Err(_) => Problem::unavailable("an answer in time").into_response(),
    }
}

/// The limit layer answers plain text; say it in our shape, unless a handler already did.
fn too_large(content_type: Option<&HeaderValue>, body: axum::body::Body) -> Response {
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/")) {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        if let Some(value) = content_type {
            response.headers_mut().insert(http::header::CONTENT_TYPE, value.clone());
        }
        return response;
    }
    payload_too_large().into_response()
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

fn route(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned()
}

/// The server span, by OpenTelemetry's HTTP conventions.
fn span(request: &Request, context: &RequestContext) -> Span {
    let route = route(request);
    if matches!(route.as_str(), "/health" | "/ready" | "/metrics") {
        return Span::none();
    }
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = %request.method(),
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
