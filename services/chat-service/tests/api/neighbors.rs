//! auth-service and billing-service, as far as chat-service speaks with them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use admission::{Admissions, Funding};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chassis::{Clock, Problem, Random};
use contracts::auth::{VerifyApiKeyRequest, VerifyApiKeyResponse};
use contracts::billing::CODE_INSUFFICIENT_FUNDS;
use contracts::entitlements::Entitlements;
use contracts::leases::{Lease, LeaseRequest};
use contracts::rates::{PriceList, PricedModel};
use contracts::usage::UsageEvent;
use contracts::{LeaseId, Shard};
use http::{HeaderMap, StatusCode};
use identity::service_tokens::{ServiceTokenRequest, ServiceTokenResponse};
use identity::{JwkSet, OrganizationId, VerifiedApiKey};
use money::Rates;
use tokio::sync::Mutex as Gate;

/// What a token costs here, in millionths of a micro-unit.
pub const RATES: Rates = Rates {
    input: 1_000_000,
    cached_input: 500_000,
    cache_write: 1_000_000,
    cache_write_1h: None,
    output: 2_000_000,
    reasoning: 2_000_000,
    audio_input: Some(10_000_000),
    audio_output: Some(20_000_000),
    image: None,
    request: 0,
};

/// What a lease is filled with, if the wallet has it.
pub const PORTION: i64 = 10_000_000;

struct Inner {
    admissions: Admissions,
    keys: Mutex<HashMap<String, VerifiedApiKey>>,
    wallet: AtomicI64,
    leases: Mutex<HashMap<OrganizationId, (LeaseId, i64)>>,
    asked: Mutex<Vec<LeaseRequest>>,
    unpriced: Mutex<Vec<String>>,
    rates: Mutex<Rates>,
    settled: Mutex<Vec<UsageEvent>>,
    traces: Mutex<Vec<String>>,
    /// What organizations may do, where it is not everything.
    plans: Mutex<HashMap<OrganizationId, Entitlements>>,
    /// Whose entitlements were asked for, in order.
    plans_asked: Mutex<Vec<OrganizationId>>,
    /// Answers about entitlements wait for this.
    plans_gate: Gate<()>,
    /// Answers about leases wait for this.
    leases_gate: Gate<()>,
    auth_status: AtomicU16,
    billing_status: AtomicU16,
}

/// Both services in one server.
#[derive(Clone)]
pub struct Neighbors(Arc<Inner>);

impl Neighbors {
    pub fn new(admissions: Admissions) -> Self {
        Self(Arc::new(Inner {
            admissions,
            keys: Mutex::default(),
            wallet: AtomicI64::new(1_000 * PORTION),
            leases: Mutex::default(),
            asked: Mutex::default(),
            unpriced: Mutex::default(),
            rates: Mutex::new(RATES),
            settled: Mutex::default(),
            traces: Mutex::default(),
            plans: Mutex::default(),
            plans_asked: Mutex::default(),
            plans_gate: Gate::default(),
            leases_gate: Gate::default(),
            auth_status: AtomicU16::default(),
            billing_status: AtomicU16::default(),
        }))
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/.well-known/jwks.json", get(|| async { Json(JwkSet::default()) }))
            .route("/internal/v1/service-tokens", post(token))
            .route("/internal/v1/api-keys/verify", post(verify))
            .route("/internal/v1/leases", post(lease))
            .route("/internal/v1/rate-cards", get(rate_cards))
            .route("/internal/v1/settlements", post(settle))
            .route("/internal/v1/entitlements/{organization}", get(entitlements))
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

    /// All that there is to be spent.
    pub fn has(&self, wallet: i64) {
        self.0.wallet.store(wallet, Ordering::SeqCst);
    }

    /// This model has no price. Only for a service that is not started yet.
    pub fn does_not_sell(&self, model: &str) {
        self.0.unpriced.lock().expect("no panic").push(model.to_owned());
    }

    /// Models are sold at other rates. Only for a service that is not started yet.
    pub fn sells_at(&self, rates: Rates) {
        *self.0.rates.lock().expect("no panic") = rates;
    }

    /// From now on this is what an organization may do.
    pub fn entitle(&self, entitlements: Entitlements) {
        self.0.plans.lock().expect("no panic").insert(entitlements.organization_id, entitlements);
    }

    /// What an organization may do.
    pub fn entitlements(&self, organization_id: OrganizationId) -> Entitlements {
        let plans = self.0.plans.lock().expect("no panic");
        plans.get(&organization_id).cloned().unwrap_or_else(|| everything(organization_id))
    }

    /// How often it was asked what an organization may do.
    pub fn plans_asked(&self, organization: OrganizationId) -> usize {
        self.0.plans_asked.lock().expect("no panic").iter().filter(|asked| **asked == organization).count()
    }

    /// Answers about entitlements are what is so now, and come when this is dropped.
    pub async fn hold_plans(&self) -> impl Drop + '_ {
        self.0.plans_gate.lock().await
    }

    /// Answers about leases are what is so when this is dropped, and come then.
    pub async fn hold_leases(&self) -> impl Drop + '_ {
        self.0.leases_gate.lock().await
    }

    /// What was asked for leases, in order.
    pub fn asked(&self) -> Vec<LeaseRequest> {
        self.0.asked.lock().expect("no panic").clone()
    }

    /// What was settled without the stream, in order.
    pub fn settled(&self) -> Vec<UsageEvent> {
        self.0.settled.lock().expect("no panic").clone()
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

async fn lease(State(state): State<Neighbors>, headers: HeaderMap, Json(request): Json<LeaseRequest>) -> Response {
    if state.answer() != StatusCode::OK {
        return state.answer().into_response();
    }
    state.trace(&headers);
    assert_eq!(headers["authorization"], "Bearer for billing-service");
    state.0.asked.lock().expect("no panic").push(request.clone());
    drop(state.0.leases_gate.lock().await);
    let shard = Shard::of(request.organization_id);
    let instance = state.0.admissions.instance(shard, "test").await.expect("Redis");
    let (id, funded, is_new) = {
        let mut leases = state.0.leases.lock().expect("no panic");
        let known = leases.get(&request.organization_id).copied();
        let (id, before) = known.unwrap_or_else(|| (LeaseId::new(&Clock::system(), &Random::system()), 0));
        let is_dry = request.seen.is_none_or(|seen| seen.funded_micros >= before);
        let mut amount = 0;
        if is_dry {
            let wallet = state.0.wallet.load(Ordering::SeqCst);
            if wallet < request.needed_micros {
                return Problem::new(StatusCode::PAYMENT_REQUIRED, CODE_INSUFFICIENT_FUNDS, "no").into_response();
            }
            // Near the end of a wallet no more than what is needed.
            amount = if wallet > 4 * PORTION { PORTION.max(request.needed_micros) } else { request.needed_micros };
            state.0.wallet.fetch_sub(amount, Ordering::SeqCst);
        }
        leases.insert(request.organization_id, (id, before + amount));
        (id, before + amount, known.is_none())
    };
    let funding = Funding {
        organization_id: request.organization_id,
        model: None,
        lease_id: id,
        epoch: 1,
        funded_micros: funded,
        low_micros: PORTION / 4,
        until: chrono::DateTime::<chrono::Utc>::MAX_UTC,
        instance: &instance,
        is_new,
    };
    state.0.admissions.fund(&funding).await.expect("Redis");
    Json(Lease { id, epoch: 1, funded_micros: funded }).into_response()
}

async fn rate_cards(State(state): State<Neighbors>, headers: HeaderMap) -> Response {
    if state.answer() != StatusCode::OK {
        return state.answer().into_response();
    }
    assert_eq!(headers["authorization"], "Bearer for billing-service");
    let unpriced = state.0.unpriced.lock().expect("no panic").clone();
    let rates = *state.0.rates.lock().expect("no panic");
    let card = |(id, model): (i64, &str)| PricedModel {
        rate_card_id: id,
        model: model.into(),
        organization_id: None,
        valid_from: chrono::DateTime::UNIX_EPOCH,
        valid_to: None,
        price: rates.into(),
    };
    let models = ["sim-small", "sim-large", "gpt-4o"].into_iter().filter(|model| !unpriced.iter().any(|other| other == model));
    Json(PriceList { data: (1..).zip(models).map(card).collect() }).into_response()
}

/// What an organization without a plan may do.
pub const fn everything(organization_id: OrganizationId) -> Entitlements {
    Entitlements {
        organization_id,
        version: 1,
        plans: Vec::new(),
        features: BTreeSet::new(),
        models: None,
        requests_per_minute: None,
        tokens_per_minute: None,
        seats: None,
        spend_limits: Vec::new(),
    }
}

async fn entitlements(State(state): State<Neighbors>, headers: HeaderMap, Path(organization): Path<OrganizationId>) -> Response {
    assert_eq!(headers["authorization"], "Bearer for billing-service");
    let answer = (state.answer(), state.entitlements(organization));
    state.0.plans_asked.lock().expect("no panic").push(organization);
    drop(state.0.plans_gate.lock().await);
    match answer {
        (StatusCode::OK, entitlements) => Json(entitlements).into_response(),
        (status, _) => status.into_response(),
    }
}

async fn settle(State(state): State<Neighbors>, Json(event): Json<UsageEvent>) -> StatusCode {
    state.0.settled.lock().expect("no panic").push(event);
    state.answer()
}
