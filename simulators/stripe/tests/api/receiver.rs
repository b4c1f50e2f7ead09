//! An endpoint that keeps what it is sent.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// What came with one delivery.
#[derive(Debug, Clone)]
pub struct Received {
    pub body: String,
    pub signature: String,
}

/// Refuses the first `refusals` deliveries.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub url: String,
    pub received: Arc<Mutex<Vec<Received>>>,
    refusals: Arc<Mutex<u32>>,
}

impl Receiver {
    pub async fn start(refusals: u32) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let receiver = Self { url, received: Arc::default(), refusals: Arc::new(Mutex::new(refusals)) };
        let router = Router::new().route("/hook", post(take)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        receiver
    }

    /// The types in the order in which they came.
    pub fn types(&self) -> Vec<String> {
        self.received.lock().unwrap().iter().map(|received| received.event()["type"].as_str().unwrap().to_owned()).collect()
    }

    pub fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Received {
    pub fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether one of the signatures is by this secret.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let time = self.signature.split(',').find_map(|part| part.strip_prefix("t=")).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{time}.{}", self.body).as_bytes());
        let expected = mac.finalize().into_bytes().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        self.signature.split(',').any(|part| part.strip_prefix("v1=") == Some(&expected))
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    let signature = headers["stripe-signature"].to_str().unwrap().to_owned();
    receiver.received.lock().unwrap().push(Received { body, signature });
    let mut refusals = receiver.refusals.lock().unwrap();
    let refused = *refusals > 0;
    *refusals = refusals.saturating_sub(1);
    if refused { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}
