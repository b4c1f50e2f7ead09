//! auth-service on free ports, with a database and a Redis of its own and a clock that the test turns.

use std::sync::{Arc, LazyLock};

use auth_service::config::{AuthConfig, Places, ServiceKeys};
use auth_service::passwords::Hasher;
use auth_service::{Application, MIGRATIONS};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chassis::clock::ManualClock;
use chassis::config::FromSetting;
use chassis::http::HttpConfig;
use chassis::telemetry::TelemetryConfig;
use chassis::{Clock, Random};
use identity::jwks::Jwk;
use identity::jwt::SigningKey;
use identity::{IdentityConfig, JwkSet};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use testkit::contract::Contract;
use testkit::http::{Answer, TestClient};
use testkit::{TestDatabase, TestRedis};
use tokio_util::sync::CancellationToken;

pub const ISSUER: &str = "https://auth.example.com";
pub const PASSWORD: &str = "correct horse battery staple";

/// What the public listener may answer.
static CONTRACT: LazyLock<Arc<Contract>> = LazyLock::new(|| Contract::of(&auth_service::router::openapi()));

pub struct App {
    pub public: TestClient,
    pub private: TestClient,
    pub database: TestDatabase,
    pub redis: TestRedis,
    pub clock: Clock,
    pub turn: ManualClock,
    pub random: Random,
    /// The key of the service that calls itself chat-service.
    pub chat_key: SigningKey,
    /// The key of a program of the operator's, `console`.
    pub console_key: SigningKey,
    pub config: Arc<AuthConfig>,
    pub hasher: Hasher,
    stop: CancellationToken,
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A new key of a service, and its public half.
fn service_key(name: &str) -> (SigningKey, Jwk) {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
    (SigningKey::from_pkcs8(name, der.as_ref()), Jwk::ed25519(name, pair.public_key().as_ref()))
}

impl App {
    pub async fn start() -> Self {
        let (clock, turn) = testkit::clock();
        let (database, redis) = (testkit::postgres::database(MIGRATIONS).await, TestRedis::start().await);
        let [(chat_key, chat), (console_key, console)] = ["chat-service", "console"].map(service_key);
        let services = JwkSet { keys: vec![chat, console] };
        let config = AuthConfig {
            http: HttpConfig::for_tests(),
            telemetry: TelemetryConfig { filter: "info".into(), format: "json".into(), otlp_endpoint: None, sample_ratio: 1.0 },
            postgres: database.config.clone(),
            redis: redis.config.clone(),
            identity: IdentityConfig { issuer: ISSUER.into(), audience: "trivet".into() },
            secret: FromSetting::from_setting(&STANDARD.encode([7; 32])).unwrap(),
            service_jwks: ServiceKeys::new(services),
            operator_grants: FromSetting::from_setting("console billing-service billing:admin:read billing:admin:write").unwrap(),
            key_environment: FromSetting::from_setting("test").unwrap(),
            hash_concurrency: Places(8),
            audit_retention_days: 0,
        };
        let random = Random::system();
        let application = Application::build(config.clone(), clock.clone(), random.clone()).await.unwrap();
        let (public, private) = (application.public_addr().unwrap(), application.private_addr().unwrap());
        let (hasher, stop) = (application.hasher(), CancellationToken::new());
        tokio::spawn(application.run(stop.clone()));
        Self {
            public: TestClient::new(public).held_to(&CONTRACT),
            private: TestClient::new(private),
            database,
            redis,
            clock,
            turn,
            random,
            chat_key,
            console_key,
            config: Arc::new(config),
            hasher,
            stop,
        }
    }

    pub async fn sign_up(&self, email: &str) -> Answer {
        self.public.post("/v1/accounts", &json!({"email": email, "password": PASSWORD, "name": "Ada"})).await
    }

    pub async fn log_in(&self, email: &str, password: &str) -> Answer {
        self.public.post("/v1/sessions", &json!({"email": email, "password": password})).await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.public.post("/v1/tokens/refresh", &json!({"refresh_token": token})).await
    }

    /// A client with the access token of a new account, and its refresh token.
    pub async fn session(&self, email: &str) -> (TestClient, String) {
        self.sign_up(email).await.expect(201);
        let answer = self.log_in(email, PASSWORD).await.expect(201);
        (self.public.bearer(&answer.string("access_token")), answer.string("refresh_token"))
    }

    /// A service token of chat-service.
    pub async fn service_token(&self, audience: &str, scope: &str) -> Answer {
        let body = json!({"client_assertion": self.assertion("chat-service", ISSUER), "audience": audience, "scope": scope});
        self.private.post("/internal/v1/service-tokens", &body).await
    }

    /// An assertion signed by chat-service's key.
    pub fn assertion(&self, name: &str, audience: &str) -> String {
        self.assertion_by(&self.chat_key, name, audience)
    }

    /// An assertion signed by any key.
    pub fn assertion_by(&self, key: &SigningKey, name: &str, audience: &str) -> String {
        let now = self.clock.now().timestamp();
        let claims = identity::ServiceClaims {
            iss: name.into(),
            aud: audience.into(),
            exp: now + 60,
            nbf: now,
            iat: now,
            sub: name.into(),
            client_id: name.into(),
            jti: self.random.uuid_v7(&self.clock).to_string(),
            scope: String::new(),
        };
        key.sign(identity::jwt::CLIENT_ASSERTION, &claims).unwrap()
    }

    /// The answer of the private look-up of a key.
    pub async fn verify(&self, key: &str) -> Answer {
        let token = self.service_token("auth-service", "api_keys:verify").await.expect(200).string("access_token");
        let digest = identity::PresentedKey::parse(key).expect("a well-formed key").sha256().to_owned();
        self.private.bearer(&token).post("/internal/v1/api-keys/verify", &json!({"key_sha256": digest})).await.expect(200)
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.database.owner).await.unwrap()
    }
}
