//! The service on port 0 with everything around it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use admission::Admissions;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chassis::clock::ManualClock;
use chassis::config::{Environment, Millis, load};
use chassis::http::HttpConfig;
use chassis::{Clock, Random};
use chat_service::Application;
use chat_service::config::ChatConfig;
use contracts::Shard;
use contracts::usage::{FIELD, UsageEvent};
use identity::{ApiKeyId, ApiKeySecret, OrganizationId, Scopes, VerifiedApiKey};
use reqwest::Response;
use serde_json::{Value, json};
use testkit::contract::Contract;
use testkit::http::{Answer, TestClient};
use testkit::{TestRedis, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::neighbors::Neighbors;
use crate::upstream::Upstream;

/// What the public listener may answer. Completions are a provider's, and those of tests say only what they are about.
static CONTRACT: LazyLock<Arc<Contract>> = LazyLock::new(|| Contract::of(&chat_service::router::openapi()).but_for("/v1/chat/completions"));

pub struct Chat {
    pub upstream: Upstream,
    pub neighbors: Neighbors,
    pub redis: TestRedis,
    pub admissions: Admissions,
    pub key: String,
    pub verified: VerifiedApiKey,
    pub address: SocketAddr,
    pub private: SocketAddr,
    /// Turns the service's clock.
    pub time: ManualClock,
    config: ChatConfig,
    clock: Clock,
    random: Random,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Chat {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The service with another configuration.
    pub async fn with(change: impl FnOnce(&mut ChatConfig)) -> Self {
        Self::before(|_| {}, change).await
    }

    /// The same, with neighbors that are told something before it starts.
    pub async fn before(tell: impl FnOnce(&Neighbors), change: impl FnOnce(&mut ChatConfig)) -> Self {
        let (upstream, redis) = (Upstream::default(), TestRedis::start().await);
        let admissions = Admissions::new(redis.redis.clone());
        let neighbors = Neighbors::new(admissions.clone());
        tell(&neighbors);
        let (provider, others) = (serve(upstream.router()).await, serve(neighbors.router()).await);
        let mut config = config(&redis, provider, others);
        change(&mut config);
        let random = Random::seeded(1);
        let (clock, time) = testkit::clock();
        let application = Application::build(config.clone(), clock.clone(), Random::system()).await.expect("an application");
        let (address, private) = (application.public_addr().expect("an address"), application.private_addr().expect("an address"));
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(application.run(shutdown.clone()));
        let verified = VerifiedApiKey {
            api_key_id: ApiKeyId::new(&clock, &random),
            organization_id: OrganizationId::new(&clock, &random),
            scopes: Scopes::api_key_default(),
            expires_at: None,
            requests_per_minute: None,
        };
        let mut chat = Self {
            upstream,
            neighbors,
            redis,
            admissions,
            key: String::new(),
            verified: verified.clone(),
            address,
            private,
            time,
            config,
            clock,
            random,
            shutdown,
            running,
        };
        chat.key = chat.new_key(verified);
        chat
    }

    /// A key that auth-service knows as this.
    pub fn new_key(&self, verified: VerifiedApiKey) -> String {
        let secret = ApiKeySecret::generate("test", &self.random);
        self.neighbors.know(secret.sha256(), verified);
        secret.expose().to_owned()
    }

    pub fn client(&self) -> TestClient {
        self.stranger().bearer(&self.key)
    }

    /// Somebody without a key.
    pub fn stranger(&self) -> TestClient {
        TestClient::new(self.address).held_to(&CONTRACT)
    }

    /// Another process of the same service, with the same neighbors; its address. It ends with the test.
    pub async fn replica(&self) -> SocketAddr {
        let application = Application::build(self.config.clone(), self.clock.clone(), Random::system()).await.expect("an application");
        let address = application.public_addr().expect("an address");
        tokio::spawn(application.run(self.shutdown.clone()));
        address
    }

    /// Asks for a completion and waits for the whole answer.
    pub async fn ask(&self, body: &Value) -> Answer {
        self.client().post("/v1/chat/completions", body).await
    }

    /// Asks for a stream and waits for its beginning.
    pub async fn stream(&self, body: &Value) -> Response {
        let client = chassis::http::client::builder().build().expect("a client");
        let url = format!("http://{}/v1/chat/completions", self.address);
        let request = client.post(url).bearer_auth(&self.key).header("content-type", "application/json").body(body.to_string());
        request.send().await.expect("an answer")
    }

    /// Asks, waits for a text of the answer, and leaves; returns when the service has closed the connection.
    pub async fn leave(&self, body: &Value, text: &str) {
        let mut socket = self.send(body).await;
        receive(&mut socket, text).await;
        hang_up(socket).await;
    }

    /// Asks, waits, and leaves; returns when the service has closed the connection.
    pub async fn leave_when(&self, body: &Value, time: impl Future<Output = ()>) {
        let socket = self.send(body).await;
        time.await;
        hang_up(socket).await;
    }

    /// Announces a body of this length, sends nothing of it, and waits for a text of the answer; what was read.
    pub async fn announce(&self, length: usize, text: &str) -> String {
        receive(&mut self.begin(length, "").await, text).await
    }

    async fn send(&self, body: &Value) -> TcpStream {
        let body = body.to_string();
        self.begin(body.len(), &body).await
    }

    /// A request with a body of this length, of which this much is sent.
    async fn begin(&self, length: usize, sent: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.expect("a connection");
        let key = &self.key;
        let head =
            format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n");
        socket.write_all((head + sent).as_bytes()).await.expect("a request is sent");
        socket
    }

    /// How many requests were admitted, in flight or settled.
    pub async fn admitted(&self) -> usize {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("trivet:*:flight:*").query_async(&mut self.redis.redis.connection()).await.expect("Redis");
        keys.len()
    }

    /// How many are in flight.
    pub async fn in_flight(&self) -> u64 {
        self.admissions.in_flight(Shard::of(self.verified.organization_id)).await.expect("Redis")
    }

    /// What is left of the lease.
    pub async fn remaining(&self) -> i64 {
        self.admissions.remaining(self.verified.organization_id, None).await.expect("Redis").expect("a lease").1
    }

    /// The settlements so far, with the `traceparent` of each.
    pub async fn settlements(&self) -> Vec<(UsageEvent, String)> {
        read(&self.redis).await.unwrap_or_default()
    }

    /// The one settlement, once the service has ended, so that a second one would be there too.
    pub async fn only_settlement(self) -> UsageEvent {
        let redis = self.stop().await;
        let settlements = read(&redis).await.expect("Redis answers");
        assert_eq!(settlements.len(), 1, "{settlements:?}");
        settlements.into_iter().map(|(event, _)| event).next().expect("one settlement")
    }

    /// Waits for the first settlement, then for the service's end: there must be no other.
    pub async fn settled(self) -> UsageEvent {
        eventually("a settlement", || async { self.settlements().await.first().cloned() }).await;
        self.only_settlement().await
    }

    /// Tells the service to stop.
    pub fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Stops the service in order.
    pub async fn stop(self) -> TestRedis {
        self.shutdown.cancel();
        self.running.await.expect("an orderly end");
        self.redis
    }
}

/// Reads until this text has come.
async fn receive(socket: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    loop {
        let so_far = String::from_utf8_lossy(&read).into_owned();
        if so_far.contains(text) {
            return so_far;
        }
        assert_ne!(socket.read_buf(&mut read).await.expect("more"), 0, "{so_far}");
    }
}

async fn hang_up(mut socket: TcpStream) {
    socket.shutdown().await.expect("the end is sent");
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.expect("the service closes the connection");
}

/// All settlements, in the order in which each shard got them.
pub async fn read(redis: &TestRedis) -> Option<Vec<(UsageEvent, String)>> {
    let mut connection = redis.redis.connection();
    let mut settlements = Vec::new();
    for shard in Shard::all() {
        let entries: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg(shard.usage_stream()).arg("-").arg("+").query_async(&mut connection).await.ok()?;
        settlements.extend(entries.ids.iter().map(|entry| {
            let event: String = entry.get(FIELD).expect("an event");
            (serde_json::from_str(&event).expect("a usage event"), entry.get("traceparent").unwrap_or_default())
        }));
    }
    Some(settlements)
}

async fn serve(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") });
    address
}

fn config(redis: &TestRedis, provider: SocketAddr, others: SocketAddr) -> ChatConfig {
    let key = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).expect("a key");
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.as_ref()));
    let environment = Environment::from_pairs([
        ("TRIVET_HTTP_BIND", "127.0.0.1:0".to_owned()),
        ("TRIVET_PRIVATE_BIND", "127.0.0.1:0".to_owned()),
        ("TRIVET_REDIS_URL", redis.config.url.clone()),
        ("TRIVET_ISSUER", "http://auth.test".to_owned()),
        ("TRIVET_AUTH_URL", format!("http://{others}")),
        ("TRIVET_SERVICE_KEY", pem),
        ("TRIVET_BILLING_URL", format!("http://{others}")),
        ("OPENAI_BASE_URL", format!("http://{provider}/v1")),
        ("OPENAI_API_KEY", "sk-our-own".to_owned()),
        ("CHAT_FORWARD_HEADERS", "x-allowed".to_owned()),
    ]);
    let config: ChatConfig = load(&environment).expect("a configuration");
    ChatConfig { http: HttpConfig { shutdown_grace: Millis(Duration::from_secs(5)), ..HttpConfig::for_tests() }, ..config }
}

/// A request for a whole answer: a prompt of 3 + 1 + 2 + 3 = 9 tokens.
pub fn whole() -> Value {
    json!({"model": "sim-small", "messages": [{"role": "user", "content": "hello world"}]})
}

/// The same for a stream.
pub fn streamed() -> Value {
    json!({"model": "sim-small", "messages": [{"role": "user", "content": "hello world"}], "stream": true})
}

/// The tokens of the prompt of [`whole`] and [`streamed`].
pub const PROMPT_TOKENS: u64 = 9;

/// Reads a stream until this text has come.
pub async fn read_until(response: &mut Response, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let chunk = response.chunk().await.expect("more").unwrap_or_else(|| panic!("the stream ended without {text}: {read}"));
        read.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    read
}
