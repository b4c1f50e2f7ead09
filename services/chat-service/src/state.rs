//! What handlers share; cheap to clone.

use std::sync::Arc;
use std::time::Duration;

use admission::Admissions;
use anyhow::Context;
use chassis::host::Host;
use chassis::http::Client;
use chassis::redis::Redis;
use chassis::{Clock, ExposeSecret, Random};
use contracts::auth::AuthClient;
use contracts::billing::BillingClient;
use contracts::entitlements::EntitlementsClient;
use identity::jwt::SigningKey;
use identity::{Authenticator, RemoteKeys, Revocations, ServiceTokens};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::BodyBudget;
use crate::budget::Budget;
use crate::config::{ChatConfig, DrainConfig, LimitsConfig, ProviderConfig};
use crate::entitlements::EntitlementCache;
use crate::models::ModelCatalog;
use crate::prices::Prices;
use crate::provider::Provider;
use crate::settlement::Settlements;

/// How long auth-service and billing-service may take to answer.
const INTERNAL_TIMEOUT: Duration = Duration::from_secs(3);
const SERVICE: &str = "chat-service";

/// Everything a handler may need.
#[derive(Debug, Clone)]
pub struct AppState {
    /// Recognizes callers.
    pub authenticator: Authenticator,
    /// The models that are offered.
    pub models: ModelCatalog,
    /// What models cost.
    pub prices: Prices,
    /// What organizations may do.
    pub entitlements: EntitlementCache,
    /// Takes money and counts requests.
    pub budget: Budget,
    /// Leases and flights in Redis.
    pub admissions: Admissions,
    /// The model provider.
    pub provider: Provider,
    /// Hands over what was used.
    pub settlements: Settlements,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// The provider's name and time limits.
    pub provider_config: Arc<ProviderConfig>,
    /// Caps for answers whose client left.
    pub drain: Arc<DrainConfig>,
    /// Places for answers whose client left.
    pub drains: Arc<Semaphore>,
    /// Limits of callers and memory.
    pub limits: Arc<LimitsConfig>,
    /// Memory for bodies.
    pub bodies: BodyBudget,
    /// Work that outlives its request.
    pub tasks: TaskTracker,
    /// Cancelled when the service begins to drain.
    pub draining: CancellationToken,
    /// How long calls may go on after that.
    pub shutdown_grace: Duration,
    /// Cancelled when the last connection has ended.
    pub stopping: CancellationToken,
}

impl AppState {
    /// Puts the state together and starts what runs beside the requests.
    ///
    /// # Errors
    /// When a setting is malformed.
    pub fn new(config: &ChatConfig, redis: Redis, host: &Host, clock: Clock, random: Random) -> anyhow::Result<Self> {
        let auth = Client::new(&config.auth.auth_url, INTERNAL_TIMEOUT)?;
        let key = SigningKey::from_pem(SERVICE, config.auth.service_key.expose_secret())
            .context("TRIVET_SERVICE_KEY must be an Ed25519 key in PKCS#8 PEM form")?;
        let tokens = ServiceTokens::new(SERVICE, &config.identity.issuer, key, auth.clone(), clock.clone(), random.clone());
        let revocations = Revocations::default();
        let authenticator = Authenticator::new(
            config.identity.clone(),
            Arc::new(RemoteKeys::new(auth.clone())),
            Arc::new(AuthClient::new(auth, tokens.clone())),
            revocations.clone(),
            clock.clone(),
        );
        let watched = redis.clone();
        host.spawn("revocations", |stop| async move { revocations.watch(&watched, &stop).await });
        let admissions = Admissions::new(redis.clone());
        let (settlements, writer) = Settlements::new(config.limits.settlement_queue, admissions.clone(), config.limits.durability);
        let client = Client::new(&config.billing_url, INTERNAL_TIMEOUT)?;
        let known = EntitlementsClient::new(client.clone(), tokens.clone());
        let entitlements = EntitlementCache::new(&config.entitlements, known, clock.clone(), host.tasks());
        let hears = entitlements.clone();
        host.spawn("entitlements", |stop| async move { hears.watch(&redis, &stop).await });
        let billing = BillingClient::new(client, tokens);
        let (prices, refresher) = Prices::new(clock.clone());
        let asked = billing.clone();
        host.spawn("prices", |stop| async move { refresher.run(&asked, &stop).await });
        let told = billing.clone();
        host.spawn("settlements", |stop| async move {
            writer.run(&told, &stop).await;
        });
        let stopping = CancellationToken::new();
        let last_connection = stopping.clone();
        host.spawn("calls", |stop| async move {
            stop.cancelled().await;
            last_connection.cancel();
        });
        Ok(Self {
            authenticator,
            models: config.models.clone(),
            prices,
            entitlements,
            budget: Budget::new(admissions.clone(), billing, host.tasks()),
            admissions,
            provider: Provider::new(&config.provider, clock.clone())?,
            settlements,
            clock,
            random,
            provider_config: Arc::new(config.provider.clone()),
            drain: Arc::new(config.drain.clone()),
            drains: Arc::new(Semaphore::new(config.drain.max_streams)),
            limits: Arc::new(config.limits.clone()),
            bodies: BodyBudget::new(config.limits.body_bytes_in_flight, config.limits.body_limit),
            tasks: host.tasks(),
            draining: host.draining(),
            // The last quarter of the grace is for telling the clients and for settling.
            shutdown_grace: config.http.shutdown_grace.0 * 3 / 4,
            stopping,
        })
    }
}
