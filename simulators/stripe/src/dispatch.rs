//! The edge of the API: key, version, idempotency, faults, and the shape of every answer.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use url::form_urlencoded;

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::expand::expand;
use crate::idempotency::Turn;
use crate::knobs::{Fault, FaultKind};
use crate::params::Params;
use crate::routes::{self, Matched};
use crate::simulator::Simulator;
use crate::world::Origin;
use crate::{API_VERSION, form};

/// A request, as far as it was understood.
struct Request {
    method: Method,
    path: String,
    form: Vec<u8>,
    origin: Origin,
}

/// Answers any path below `/v1`.
pub(crate) async fn dispatch(State(simulator): State<Simulator>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    simulator.count_request();
    let request_id = simulator.world().id("req");
    let version = text(&headers, "stripe-version").unwrap_or(API_VERSION).to_owned();
    let key = text(&headers, "idempotency-key").filter(|_| method == Method::POST).map(str::to_owned);
    // Parameters of GET and DELETE are in the query; libraries differ for DELETE.
    let form = if body.is_empty() { uri.query().unwrap_or_default().as_bytes().to_vec() } else { body.to_vec() };
    let origin = Origin { request_id: Some(request_id.clone()), idempotency_key: key.clone(), version: version.clone() };
    let request = Request { method, path: uri.path().to_owned(), form, origin };
    let mut response = match admit(&headers, &version) {
        Ok(()) => answer(&simulator, request).await,
        Err(failure) => respond(failure.status, &failure.body(), &request_id),
    };
    let named = [("request-id", Some(request_id)), ("stripe-version", Some(version)), ("idempotency-key", key)];
    for (name, value) in named {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The key must be a test key, and the version must look like one.
fn admit(headers: &HeaderMap, version: &str) -> Result<(), Failure> {
    let key = text(headers, "authorization").and_then(secret_key).ok_or_else(|| {
        Failure::unauthorized("You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').")
    })?;
    if !["sk_test_", "rk_test_"].iter().any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty())) {
        let shown: String = key.chars().take(8).collect();
        return Err(Failure::unauthorized(&format!("Invalid API Key provided: {shown}***")));
    }
    let date = version.split('.').next().unwrap_or_default();
    let dated = date.len() == 10
        && date.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
    if dated { Ok(()) } else { Err(Failure::invalid(format!("Invalid Stripe API version: {version}"))) }
}

/// The key of `Bearer KEY`, or of basic authentication with the key for a name.
fn secret_key(authorization: &str) -> Option<String> {
    let (scheme, value) = authorization.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(value.trim().to_owned()),
        "basic" => {
            let decoded = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
            Some(decoded.split(':').next()?.to_owned())
        }
        _ => None,
    }
}

async fn answer(simulator: &Simulator, request: Request) -> Response {
    let request_id = request.origin.request_id.clone().unwrap_or_default();
    // Before its key is looked at: it may come again under the same one.
    if !simulator.admits() {
        return too_many(&request_id);
    }
    let fault = simulator.turn_knobs(|knobs| knobs.take_fault(request.method.as_str(), &request.path));
    if let Some(fault) = fault.as_ref().filter(|fault| fault.kind == FaultKind::RateLimited) {
        return rate_limited(fault, &request_id);
    }
    let fingerprint = fingerprint(&request);
    if let Some(key) = &request.origin.idempotency_key {
        let now = simulator.world().clock.now();
        match simulator.keys().begin(key, &fingerprint, now) {
            Ok(Turn::Execute) => {}
            Ok(Turn::Replay(status, body, original)) => return replayed(status, &body, &original),
            Err(failure) => return respond(failure.status, &failure.body(), &request_id),
        }
    }
    // On a task of its own: what was begun is ended and its answer kept, also when the caller has gone.
    let simulator = simulator.clone();
    let hangs = fault.as_ref().is_some_and(|fault| fault.kind == FaultKind::TimeoutAfterEffect);
    let done = tokio::spawn(async move { finish(&simulator, request, fault).await }).await;
    if hangs {
        // Until the caller goes.
        std::future::pending::<()>().await;
    }
    done.unwrap_or_else(|error| {
        tracing::error!(error.message = %error, "a request ended in a panic");
        respond(StatusCode::INTERNAL_SERVER_ERROR, &Failure::internal().body(), &request_id)
    })
}

fn refused(param: Option<&str>) -> Failure {
    let failure = Failure::invalid("This value is not taken.");
    match param {
        Some(param) => failure.param(param),
        None => failure,
    }
}

async fn finish(simulator: &Simulator, request: Request, fault: Option<Fault>) -> Response {
    let turn = simulator.reporting().begin(&request.path, &request.form);
    if let Some(fault) = fault.as_ref().filter(|fault| fault.kind == FaultKind::Slow) {
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    }
    let kind = fault.as_ref().map(|fault| fault.kind);
    let request_id = request.origin.request_id.clone().unwrap_or_default();
    let key = request.origin.idempotency_key.clone();
    // In the file are either both, the effect and the answer of its key, or neither.
    let whole = simulator.file().begin();
    let mut outcome = match (kind, turn) {
        (_, Err(failure)) => Err(failure),
        (Some(FaultKind::ErrorBeforeEffect), _) => Err(Failure::internal()),
        (Some(FaultKind::Refused), _) => Err(refused(fault.as_ref().and_then(|fault| fault.param.as_deref()))),
        // The turn lasts until it is done.
        (_, Ok(_turn)) => execute(simulator, request),
    };
    if kind == Some(FaultKind::ErrorAfterEffect) {
        outcome = Err(Failure::internal());
    }
    let (status, mut body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(failure) => (failure.status, failure.body()),
    };
    if body["error"].is_object() {
        body["error"]["request_log_url"] = format!("https://dashboard.stripe.com/test/logs/{request_id}").into();
    }
    if let Some(key) = key {
        simulator.keys().end(&key, status, &body, &request_id);
    }
    drop(whole);
    let mut response = respond(status, &body, &request_id);
    if let Some(asked) = fault.filter(|_| status.is_server_error()).and_then(|fault| fault.should_retry) {
        response.headers_mut().insert("stripe-should-retry", HeaderValue::from_static(if asked { "true" } else { "false" }));
    }
    response
}

fn execute(simulator: &Simulator, request: Request) -> Answer {
    let Some(Matched { route, path }) = routes::find(request.method.as_str(), &request.path) else {
        return Err(Failure::no_such_route(request.method.as_str(), &request.path));
    };
    let params = Params::new(form::parse(&request.form)?);
    params.check(route.params)?;
    let mut world = simulator.world();
    world.origin = request.origin;
    simulator.catch_up(&mut world);
    world.begin();
    let result = (route.handler)(&mut Call { world: &mut world, path: &path, params: &params });
    let result = result.and_then(|answer| expand(&world, answer, &params.texts("expand")));
    match &result {
        Err(failure) if failure.takes_back => world.roll_back(),
        _ => world.commit(),
    }
    simulator.hand_over_events(&mut world);
    let mut answer = result?;
    if answer["object"] == "list" && answer["url"] == "" {
        answer["url"] = request.path.into();
    }
    Ok(answer)
}

/// What makes two requests the same: the order of parameters does not.
fn fingerprint(request: &Request) -> Bytes {
    let mut pairs: Vec<_> = form_urlencoded::parse(&request.form).into_owned().collect();
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    let form: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{} {}\n{form}", request.method, request.path).into()
}

fn rate_limited(fault: &Fault, request_id: &str) -> Response {
    let failure = Failure::rate_limited();
    let mut response = respond(failure.status, &failure.body(), request_id);
    response.headers_mut().insert(header::RETRY_AFTER, fault.retry_after_s.into());
    if let Some(asked) = fault.should_retry {
        response.headers_mut().insert("stripe-should-retry", HeaderValue::from_static(if asked { "true" } else { "false" }));
    }
    response
}

fn too_many(request_id: &str) -> Response {
    let failure = Failure::rate_limited();
    let mut response = respond(failure.status, &failure.body(), request_id);
    response.headers_mut().insert("stripe-rate-limited-reason", HeaderValue::from_static("global-rate"));
    response
}

fn replayed(status: StatusCode, body: &Value, original: &str) -> Response {
    let mut response = respond(status, body, original);
    response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    if let Ok(original) = HeaderValue::from_str(original) {
        response.headers_mut().insert("original-request", original);
    }
    response
}

fn respond(status: StatusCode, body: &Value, request_id: &str) -> Response {
    let pretty = if body["error"].is_object() && body["error"]["request_log_url"].is_null() {
        let mut body = body.clone();
        body["error"]["request_log_url"] = format!("https://dashboard.stripe.com/test/logs/{request_id}").into();
        format!("{body:#}")
    } else {
        format!("{body:#}")
    };
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(pretty)).into_response()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
