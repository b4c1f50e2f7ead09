//! billing-service on free ports, with a database and a Redis of its own, a clock that the test turns, and a stand-in for
//! auth-service that publishes one key and knows one API key per organization.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use admission::Admissions;
use axum::routing::{get, post};
use axum::{Json, Router};
use billing_service::audit::Decision;
use billing_service::config::{BillingConfig, LeaseConfig, MeteringConfig, StripeConfig, UsageConfig};
use billing_service::grants::{self, GrantId, NewGrant};
use billing_service::organizations;
use billing_service::state::AppState;
use billing_service::{Application, MIGRATIONS};
use chassis::clock::ManualClock;
use chassis::config::{CommaList, Millis};
use chassis::http::HttpConfig;
use chassis::telemetry::TelemetryConfig;
use chassis::{Clock, Random, SecretString, in_transaction};
use chrono::{DateTime, Utc};
use contracts::auth::{VerifyApiKeyRequest, VerifyApiKeyResponse};
use contracts::leases::SCOPE_LEASES_WRITE;
use identity::jwt::{ACCESS_TOKEN, SigningKey};
use identity::{ApiKeyId, ApiKeySecret, AuthClientConfig, IdentityConfig, JwkSet, OrganizationId, Scopes, ServiceClaims, VerifiedApiKey};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use sqlx::{Executor, PgPool};
use testkit::contract::Contract;
use testkit::http::TestClient;
use testkit::{TestDatabase, TestRedis};
use tokio_util::sync::CancellationToken;

pub const ISSUER: &str = "https://auth.example.com";
/// What the public listener may answer.
static CONTRACT: LazyLock<Arc<Contract>> = LazyLock::new(|| Contract::of(&billing_service::router::openapi()));
/// What a new organization gets, in micro-units.
pub const GRANT: i64 = 5_000_000;

type Keys = Arc<Mutex<HashMap<String, VerifiedApiKey>>>;

pub struct App {
    pub public: TestClient,
    pub private: TestClient,
    /// With the scope of a gateway.
    pub gateway: TestClient,
    pub admissions: Admissions,
    pub database: TestDatabase,
    pub redis: TestRedis,
    pub clock: Clock,
    pub turn: ManualClock,
    pub random: Random,
    pub config: BillingConfig,
    keys: Keys,
    signer: SigningKey,
    stop: CancellationToken,
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn pem(der: &[u8]) -> SecretString {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n").into()
}

impl App {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut BillingConfig)) -> Self {
        let (clock, turn) = testkit::clock();
        let (database, redis) = (testkit::postgres::database(MIGRATIONS).await, TestRedis::answering_within(Duration::from_secs(10)).await);
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
        let signer = SigningKey::from_pkcs8("k1", der.as_ref());
        let keys = Keys::default();
        let published = JwkSet { keys: vec![identity::jwks::Jwk::ed25519("k1", pair.public_key().as_ref())] };
        let auth_url = auth_stub(published, signer.clone(), keys.clone(), clock.clone()).await;
        let mut config = BillingConfig {
            http: HttpConfig::for_tests(),
            telemetry: TelemetryConfig { filter: "info".into(), format: "json".into(), otlp_endpoint: None, sample_ratio: 1.0 },
            postgres: database.config.clone(),
            redis: redis.config.clone(),
            identity: IdentityConfig { issuer: ISSUER.into(), audience: "trivet".into() },
            auth: AuthClientConfig { auth_url, service_key: pem(der.as_ref()) },
            secret: "a secret of billing".to_owned().into(),
            signup_grant: GRANT,
            sweep: Millis(Duration::from_millis(50)),
            lease: LeaseConfig { life: Millis(Duration::from_mins(1)), drain: Millis(Duration::from_mins(7)), start: 100_000 },
            webhooks_to_private: false,
            alerts_retention_days: 0,
            ledger_check: Millis(Duration::ZERO),
            overage: billing_service::usage::Overage::Debt,
            stripe: StripeConfig {
                secret_key: None,
                webhook_secrets: CommaList(Vec::new()),
                api_base: "http://127.0.0.1:9".into(),
                livemode: false,
                automatic_tax: false,
                requests_per_second: 0,
                gaps: Millis(Duration::ZERO),
                reconcile: Millis(Duration::ZERO),
            },
            metering: MeteringConfig {
                late_window: Millis(Duration::from_hours(35 * 24)),
                close_after: Millis(Duration::from_hours(3 * 24)),
                retention_months: 0,
            },
            usage: UsageConfig { roll_up: Millis(Duration::from_millis(50)), retention_months: 0, detach: true },
        };
        adjust(&mut config);
        let random = Random::system();
        let application = Application::build(config.clone(), clock.clone(), random.clone()).await.unwrap();
        let (public, private) = (application.public_addr().unwrap(), application.private_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(application.run(stop.clone()));
        let service = TestClient::new(private).bearer(&service_token(&signer, &clock, "billing-service", "reservations:write"));
        let gateway = TestClient::new(private).bearer(&service_token(&signer, &clock, "billing-service", SCOPE_LEASES_WRITE));
        let admissions = Admissions::new(redis.redis.clone());
        Self {
            public: TestClient::new(public).held_to(&CONTRACT),
            private: service,
            gateway,
            admissions,
            database,
            redis,
            clock,
            turn,
            random,
            config,
            keys,
            signer,
            stop,
        }
    }

    /// A service with another scope on the private listener.
    pub fn service(&self, scope: &str) -> TestClient {
        TestClient::new(self.private.address()).bearer(&service_token(&self.signer, &self.clock, "billing-service", scope))
    }

    /// The state behind a service, for calling its parts directly.
    pub fn state(&self) -> AppState {
        self.state_with(self.database.pool.clone())
    }

    /// The same with other connections to the database.
    pub fn state_with(&self, pool: PgPool) -> AppState {
        AppState::new(self.config.clone(), pool, self.redis.redis.clone(), self.clock.clone(), self.random.clone()).unwrap()
    }

    /// A new organization, and a client with one of its API keys.
    pub fn organization(&self) -> (OrganizationId, TestClient) {
        self.organization_with(Scopes::api_key_default())
    }

    /// The same with other scopes.
    pub fn organization_with(&self, scopes: Scopes) -> (OrganizationId, TestClient) {
        let organization_id = OrganizationId::new(&self.clock, &self.random);
        (organization_id, self.key_of(organization_id, scopes))
    }

    /// A client with a new API key of the organization.
    pub fn key_of(&self, organization_id: OrganizationId, scopes: Scopes) -> TestClient {
        let secret = ApiKeySecret::generate("test", &self.random);
        let key = VerifiedApiKey {
            api_key_id: ApiKeyId::new(&self.clock, &self.random),
            organization_id,
            scopes,
            expires_at: None,
            requests_per_minute: None,
        };
        self.keys.lock().unwrap().insert(secret.sha256(), key);
        self.public.bearer(secret.expose())
    }

    /// How many messages a stream holds.
    pub async fn length(&self, stream: &str) -> i64 {
        redis::cmd("XLEN").arg(stream).query_async(&mut self.redis.redis.connection()).await.unwrap()
    }

    /// Available and held.
    pub async fn balance(&self, client: &TestClient) -> (i64, i64) {
        let balance = client.get("/v1/balance").await.expect(200).json;
        (balance["available_micros"].as_i64().unwrap(), balance["held_micros"].as_i64().unwrap())
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.database.owner).await.unwrap()
    }

    /// Runs statements as the owner of the schema, who may do what the service may not.
    pub async fn as_owner(&self, statements: &'static str) {
        self.database.owner.execute(statements).await.unwrap();
    }

    /// Sells a model at the rates of `sim-large`, or no longer.
    pub async fn sell(&self, model: &str, yes: bool) {
        let statement = if yes {
            "insert into rate_cards (model, valid_from, price_input, price_cached, price_cache_write, price_output, price_reasoning, price_audio_in,
               price_audio_out, cost_input, cost_cached, cost_cache_write, cost_output, cost_reasoning, cost_audio_in, cost_audio_out)
             select $1, valid_from, price_input, price_cached, price_cache_write, price_output, price_reasoning, price_audio_in,
               price_audio_out, cost_input, cost_cached, cost_cache_write, cost_output, cost_reasoning, cost_audio_in, cost_audio_out
             from rate_cards where model = 'sim-large'"
        } else {
            "delete from rate_cards where model = $1"
        };
        sqlx::query(statement).bind(model).execute(&self.database.owner).await.unwrap();
    }

    /// A metric of the process, summed over its labels; other tests count in it too.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.private.get("/metrics").await.expect(200).text;
        let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    pub async fn assert_clean(&self) {
        let differences = billing_service::ledger::verify::differences(&self.database.pool).await.unwrap();
        assert!(differences.is_empty(), "{differences:?}");
    }
}

fn service_token(signer: &SigningKey, clock: &Clock, audience: &str, scope: &str) -> String {
    let now = clock.now().timestamp();
    let text = |text: &str| text.to_owned();
    // Longer than the real ones, so that a test may turn the clock.
    let claims = ServiceClaims {
        iss: text(ISSUER),
        aud: text(audience),
        exp: now + 36_500 * 86_400,
        nbf: now,
        iat: now,
        sub: text("chat-service"),
        client_id: text("chat-service"),
        jti: text("1"),
        scope: text(scope),
    };
    signer.sign(ACCESS_TOKEN, &claims).unwrap()
}

async fn auth_stub(published: JwkSet, signer: SigningKey, keys: Keys, clock: Clock) -> String {
    let router = Router::new()
        .route("/.well-known/jwks.json", get(|| async move { Json(published) }))
        .route("/internal/v1/service-tokens", post(move || async move {
            Json(json!({"access_token": service_token(&signer, &clock, "auth-service", "api_keys:verify"), "token_type": "Bearer", "expires_in": 300}))
        }))
        .route("/internal/v1/api-keys/verify", post(move |Json(request): Json<VerifyApiKeyRequest>| async move {
            Json(VerifyApiKeyResponse { api_key: keys.lock().unwrap().get(&request.key_sha256).cloned() })
        }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

impl App {
    /// Gives an organization a lot; none when its fact gave one before.
    pub async fn give(&self, organization: OrganizationId, grant: &NewGrant) -> Option<GrantId> {
        let state = self.state();
        let given: Result<_, billing_service::error::Error> = in_transaction!(state.pool, |transaction| {
            organizations::ensure_wallet(&state, transaction, organization).await?;
            grants::issue(&state, transaction, organization, grant).await
        });
        given.unwrap()
    }

    /// The lots of a balance: source and what is left, in the order in which they burn.
    pub async fn lots(&self, client: &TestClient) -> Vec<(String, i64)> {
        let balance = client.get("/v1/balance").await.expect(200).json;
        let lots = balance["lots"].as_array().unwrap().iter();
        lots.map(|lot| (lot["source"].as_str().unwrap().to_owned(), lot["remaining_micros"].as_i64().unwrap())).collect()
    }

    /// Imports a price list, or only says what that would change.
    pub async fn import(
        &self,
        text: &str,
        markup_percent: i64,
        from: DateTime<Utc>,
        dry_run: bool,
    ) -> Result<Vec<String>, billing_service::rates::ImportError> {
        let state = self.state();
        let decision = Decision::new(&state, "ada", "a test", None);
        let list = billing_service::rates::List { text, markup_percent, from: Some(from) };
        billing_service::rates::import(&state, &list, (!dry_run).then_some(&decision)).await
    }

    /// The balance of a house account.
    pub async fn house(&self, kind: &str) -> i64 {
        let balance =
            sqlx::query_scalar("select balance_micros from accounts where organization_id is null and kind = $1 and currency = 'USD'")
                .bind(kind);
        balance.fetch_one(&self.database.owner).await.unwrap()
    }

    /// What an organization owes.
    pub async fn debt(&self, organization: OrganizationId) -> i64 {
        billing_service::ledger::balances(&self.database.pool, organization).await.unwrap().unwrap().debt
    }
}
