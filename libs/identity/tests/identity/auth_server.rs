//! A stand-in for auth-service: it counts requests, and answers, fails or hangs as it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chassis::http::Client;
use http::StatusCode;
use identity::JwkSet;
use identity::jwks::Jwk;
use serde_json::json;
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Answers,
    Fails,
    Hangs,
}

#[derive(Clone)]
pub struct AuthServer(Arc<Inner>);

struct Inner {
    requests: AtomicUsize,
    mode: watch::Sender<Mode>,
    kids: watch::Sender<Vec<&'static str>>,
    client: Client,
}

impl AuthServer {
    /// Clients give up after `timeout`.
    pub async fn start(timeout: Duration) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), timeout).unwrap();
        let (mode, kids) = (watch::Sender::new(Mode::Answers), watch::Sender::new(vec!["k1"]));
        let server = Self(Arc::new(Inner { requests: AtomicUsize::new(0), mode, kids, client }));
        let router = Router::new()
            .route("/.well-known/jwks.json", get(keys))
            .route("/internal/v1/service-tokens", post(token))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    pub fn client(&self) -> Client {
        self.0.client.clone()
    }

    pub fn requests(&self) -> usize {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// Waits until so many requests have come.
    pub async fn reach(&self, requests: usize) {
        testkit::eventually("the request", || async { (self.requests() >= requests).then_some(()) }).await;
        assert_eq!(self.requests(), requests);
    }

    /// From now on, also for requests that hang.
    pub fn turn(&self, mode: Mode) {
        self.0.mode.send_replace(mode);
    }

    /// The keys that are published from now on.
    pub fn publish(&self, kids: &[&'static str]) {
        self.0.kids.send_replace(kids.to_vec());
    }

    /// Counts a request; gives its number when it may be answered.
    async fn come(&self) -> Result<usize, StatusCode> {
        let number = self.0.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let mut mode = self.0.mode.subscribe();
        let turned = mode.wait_for(|mode| *mode != Mode::Hangs).await.map(|mode| *mode);
        if turned.is_ok_and(|mode| mode == Mode::Answers) { Ok(number) } else { Err(StatusCode::INTERNAL_SERVER_ERROR) }
    }
}

/// The public key behind every `kid`.
pub fn public_key() -> Vec<u8> {
    vec![7; 32]
}

async fn keys(State(server): State<AuthServer>) -> Response {
    if let Err(status) = server.come().await {
        return status.into_response();
    }
    let kids = server.0.kids.borrow().clone();
    Json(JwkSet { keys: kids.iter().map(|kid| Jwk::ed25519(kid, &public_key())).collect() }).into_response()
}

async fn token(State(server): State<AuthServer>) -> Response {
    match server.come().await {
        Ok(number) => Json(json!({"access_token": format!("token {number}"), "token_type": "Bearer", "expires_in": 300})).into_response(),
        Err(status) => status.into_response(),
    }
}
