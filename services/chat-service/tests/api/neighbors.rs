//! auth-service and billing-service, as far as chat-service speaks with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chassis::{Clock, Problem, Random};
use contracts::ReservationId;
use contracts::auth::{VerifyApiKeyRequest, VerifyApiKeyResponse};
use contracts::billing::{CODE_INSUFFICIENT_FUNDS, CODE_MODEL_NOT_PRICED, Reservation, ReservationRequest, SettleRequest};
use http::{HeaderMap, StatusCode};
use identity::service_tokens::{ServiceTokenRequest, ServiceTokenResponse};
use identity::{JwkSet, VerifiedApiKey};

#[derive(Default)]
struct Inner {
    keys: Mutex<HashMap<String, VerifiedApiKey>>,
    reservations: Mutex<Vec<(ReservationRequest, ReservationId)>>,
    settled: Mutex<Vec<(ReservationId, SettleRequest)>>,
    voided: Mutex<Vec<ReservationId>>,
    traces: Mutex<Vec<String>>,
    lost_answers: AtomicUsize,
    auth_status: AtomicU16,
    billing_status: AtomicU16,
}

/// Both services in one server.
#[derive(Clone, Default)]
pub struct Neighbors(Arc<Inner>);

impl Neighbors {
    pub fn router(&self) -> Router {
        Router::new()
            .route("/.well-known/jwks.json", get(|| async { Json(JwkSet::default()) }))
            .route("/internal/v1/service-tokens", post(token))
            .route("/internal/v1/api-keys/verify", post(verify))
            .route("/internal/v1/reservations", post(reserve))
            .route("/internal/v1/reservations/{id}/settle", post(settle))
            .route("/internal/v1/reservations/{id}/void", post(void))
            .with_state(self.clone())
    }

    pub fn know(&self, sha256: String, key: VerifiedApiKey) {
        self.0.keys.lock().expect("no panic").insert(sha256, key);
    }

    /// From now on auth-service answers with this status.
    pub fn auth_answers(&self, status: u16) {
        self.0.auth_status.store(status, Ordering::SeqCst);
    }

    /// From now on billing-service answers with this status.
    pub fn billing_answers(&self, status: u16) {
        self.0.billing_status.store(status, Ordering::SeqCst);
    }

    /// The answers to so many reservations get lost: the holds are placed.
    pub fn lose_answers(&self, count: usize) {
        self.0.lost_answers.store(count, Ordering::SeqCst);
    }

    /// What was settled without the stream, in order.
    pub fn settled(&self) -> Vec<(ReservationId, SettleRequest)> {
        self.0.settled.lock().expect("no panic").clone()
    }

    pub fn voided(&self) -> Vec<ReservationId> {
        self.0.voided.lock().expect("no panic").clone()
    }

    pub fn reservations(&self) -> Vec<(ReservationRequest, ReservationId)> {
        self.0.reservations.lock().expect("no panic").clone()
    }

    /// The `traceparent` of each call.
    pub fn traces(&self) -> Vec<String> {
        self.0.traces.lock().expect("no panic").clone()
    }

    fn answer(&self) -> StatusCode {
        match self.0.billing_status.load(Ordering::SeqCst) {
            0 => StatusCode::OK,
            status => StatusCode::from_u16(status).expect("a status"),
        }
    }

    fn trace(&self, headers: &HeaderMap) {
        let trace = headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.0.traces.lock().expect("no panic").push(trace.to_owned());
    }
}

async fn token(State(state): State<Neighbors>, Json(request): Json<ServiceTokenRequest>) -> Response {
    if state.0.auth_status.load(Ordering::SeqCst) != 0 {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let answer = ServiceTokenResponse { access_token: format!("for {}", request.audience), token_type: "Bearer".into(), expires_in: 300 };
    Json(answer).into_response()
}

async fn verify(State(state): State<Neighbors>, headers: HeaderMap, Json(request): Json<VerifyApiKeyRequest>) -> Response {
    if state.0.auth_status.load(Ordering::SeqCst) != 0 {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    state.trace(&headers);
    assert_eq!(headers["authorization"], "Bearer for auth-service");
    let api_key = state.0.keys.lock().expect("no panic").get(&request.key_sha256).cloned();
    Json(VerifyApiKeyResponse { api_key }).into_response()
}

async fn reserve(State(state): State<Neighbors>, headers: HeaderMap, Json(request): Json<ReservationRequest>) -> Response {
    match state.0.billing_status.load(Ordering::SeqCst) {
        0 => {}
        402 => return Problem::new(StatusCode::PAYMENT_REQUIRED, CODE_INSUFFICIENT_FUNDS, "no").into_response(),
        404 => return Problem::new(StatusCode::NOT_FOUND, CODE_MODEL_NOT_PRICED, "no").into_response(),
        status => return StatusCode::from_u16(status).expect("a status").into_response(),
    }
    state.trace(&headers);
    assert_eq!(headers["authorization"], "Bearer for billing-service");
    let mut reservations = state.0.reservations.lock().expect("no panic");
    let known = reservations.iter().find(|(known, _)| *known == request).map(|(_, id)| *id);
    let id = known.unwrap_or_else(|| ReservationId::new(&Clock::system(), &Random::system()));
    let answer =
        Reservation { id, request_id: request.request_id, currency: "USD".into(), amount_micros: 1, expires_at: request.expires_at };
    if known.is_none() {
        reservations.push((request, id));
    }
    match state.0.lost_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => StatusCode::BAD_GATEWAY.into_response(),
        Err(_) => Json(answer).into_response(),
    }
}

async fn settle(State(state): State<Neighbors>, Path(id): Path<ReservationId>, Json(request): Json<SettleRequest>) -> StatusCode {
    state.0.settled.lock().expect("no panic").push((id, request));
    state.answer()
}

async fn void(State(state): State<Neighbors>, Path(id): Path<ReservationId>) -> StatusCode {
    state.0.voided.lock().expect("no panic").push(id);
    state.answer()
}
