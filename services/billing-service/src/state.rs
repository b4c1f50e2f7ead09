//! What handlers share; cheap to clone, split by `FromRef`.

use std::sync::Arc;
use std::time::Duration;

use admission::Admissions;
use axum::extract::FromRef;
use chassis::cursor::CursorKey;
use chassis::host::Host;
use chassis::http::Client;
use chassis::redis::Redis;
use chassis::streams::Consumer;
use chassis::{Clock, ExposeSecret, Random};
use contracts::Shard;
use contracts::auth::AuthClient;
use identity::jwt::SigningKey;
use identity::{Authenticator, KeySource, RemoteKeys, Revocations, ServiceAuthenticator, ServiceTokens};
use sqlx::PgPool;
use tokio::sync::Notify;

use crate::config::BillingConfig;
use crate::organizations::AuthEvents;
use crate::places::Places;
use crate::stripe::transport::Transport;
use crate::usage::UsageEvents;
use crate::{
    budgets, entitlements, grants, leases, ledger, margin, operations, reservations, rollups, stripe, subscriptions, top_ups, usage,
};

const AUTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages that are posted in one transaction.
const BATCH: usize = 500;
/// A message that another replica has held for this long is taken over.
const CLAIM_AFTER: Duration = Duration::from_secs(5);
/// Tries before a message is set aside; with claims every few seconds this outlasts a restart of the database.
const MAX_DELIVERIES: usize = 20;

/// Everything a handler may need.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The configuration.
    pub config: Arc<BillingConfig>,
    /// The database, as the role that owns nothing.
    pub pool: PgPool,
    /// Redis.
    pub redis: Redis,
    /// Leases and flights in it.
    pub admissions: Admissions,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Seals cursors of the usage list.
    pub usage_cursors: CursorKey,
    /// Seals cursors of the ledger.
    pub ledger_cursors: CursorKey,
    /// Stripe, if a key is configured.
    pub stripe: Option<Transport>,
    /// Wakes the worker when an event of Stripe was stored.
    pub stripe_events: Arc<Notify>,
    /// Seals cursors of the list of grants.
    pub grant_cursors: CursorKey,
    /// For who reads a long history: each holds a connection, of which leases and settlements need some.
    pub histories: Places,
    /// For who exports: each lasts as long as its reader takes.
    pub exports: Places,
    revocations: Revocations,
    authenticator: Authenticator,
    service_authenticator: ServiceAuthenticator,
}

impl AppState {
    /// Puts the state together.
    ///
    /// # Errors
    /// When a setting is malformed.
    pub fn new(config: BillingConfig, pool: PgPool, redis: Redis, clock: Clock, random: Random) -> anyhow::Result<Self> {
        let client = Client::new(&config.auth.auth_url, AUTH_TIMEOUT)?;
        let key = SigningKey::from_pem(contracts::billing::SERVICE, config.auth.service_key.expose_secret())
            .map_err(|_| anyhow::anyhow!("TRIVET_SERVICE_KEY must be an Ed25519 private key in PKCS#8 PEM"))?;
        let issuer = config.identity.issuer.clone();
        let tokens = ServiceTokens::new(contracts::billing::SERVICE, &issuer, key, client.clone(), clock.clone(), random.clone());
        let keys: Arc<dyn KeySource> = Arc::new(RemoteKeys::new(client.clone()));
        let lookup = Arc::new(AuthClient::new(client, tokens));
        let revocations = Revocations::default();
        let authenticator = Authenticator::new(config.identity.clone(), keys.clone(), lookup, revocations.clone(), clock.clone());
        let service_authenticator = ServiceAuthenticator::new(&issuer, contracts::billing::SERVICE, keys, clock.clone());
        Ok(Self {
            usage_cursors: CursorKey::derive(&config.secret, "usage"),
            ledger_cursors: CursorKey::derive(&config.secret, "ledger"),
            grant_cursors: CursorKey::derive(&config.secret, "grants"),
            histories: Places::new(4, 2),
            exports: Places::new(64, 4),
            stripe: stripe(&config, &random)?,
            config: Arc::new(config),
            pool,
            admissions: Admissions::new(redis.clone()),
            redis,
            clock,
            random,
            stripe_events: Arc::default(),
            revocations,
            authenticator,
            service_authenticator,
        })
    }

    /// Starts what runs beside the requests.
    pub fn spawn_tasks(&self, host: &Host) {
        let state = self.clone();
        host.spawn("revocations", |stop| async move { state.revocations.watch(&state.redis, &stop).await });
        let usage_events = UsageEvents::new(self.clone());
        for shard in Shard::all() {
            let (state, usage_events) = (self.clone(), usage_events.clone());
            host.spawn("usage-events", move |stop| async move {
                let consumer = state.consumer(&shard.usage_stream(), contracts::usage::GROUP);
                consumer.run(&state.redis, &usage_events, &stop).await;
            });
        }
        let state = self.clone();
        host.spawn("auth-events", |stop| async move {
            let consumer = Consumer { delete_acknowledged: false, ..state.consumer(contracts::events::AUTH_STREAM, "billing") };
            consumer.run(&state.redis, &AuthEvents(state.clone()), &stop).await;
        });
        let state = self.clone();
        host.spawn("reservation-sweeper", |stop| async move { reservations::sweep_until(&state, state.config.sweep.0, &stop).await });
        let state = self.clone();
        host.spawn("lease-sweeper", |stop| async move { leases::sweep_leases_until(&state, state.config.sweep.0, &stop).await });
        let state = self.clone();
        host.spawn("flight-sweeper", |stop| async move { leases::sweep_flights_until(&state, state.config.sweep.0, &stop).await });
        let state = self.clone();
        host.spawn("grant-expiry", |stop| async move { grants::sweep_until(&state, state.config.sweep.0, &stop).await });
        let state = self.clone();
        host.spawn("ledger-sealer", |stop| async move { ledger::seal::seal_until(&state, &stop).await });
        let state = self.clone();
        host.spawn("ledger-checks", |stop| async move { ledger::checks::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("rollups", |stop| async move { rollups::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("earlier-events", |stop| async move { rollups::earlier::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("usage-partitions", |stop| async move { usage::partitions::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("margin-alerts", |stop| async move { margin::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("stripe-events", |stop| async move { stripe::worker::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("budget-alerts", |stop| async move { budgets::alerts::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("webhooks", |stop| async move { budgets::webhooks::sender::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("housekeeping", |stop| async move { entitlements::push::housekeeping(&state, &stop).await });
        let relay = entitlements::push::relay(self);
        host.spawn("outbox-relay", |stop| async move { relay.run(&stop).await });
        let state = self.clone();
        host.spawn("subscriptions-due", |stop| async move { subscriptions::due::run_until(&state, state.config.sweep.0, &stop).await });
        let state = self.clone();
        host.spawn(
            "subscription-grants",
            |stop| async move { subscriptions::grants::run_until(&state, state.config.sweep.0, &stop).await },
        );
        let state = self.clone();
        host.spawn("top-ups", |stop| async move { top_ups::run_until(&state, state.config.sweep.0, &stop).await });
        let state = self.clone();
        host.spawn("stripe-sender", |stop| async move { stripe::sender::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("stripe-meters", |stop| async move { stripe::meters::sender::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("stripe-customers", |stop| async move { stripe::customers::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("operations", |stop| async move { operations::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("stripe-gaps", |stop| async move { stripe::gaps::run(&state, &stop).await });
        let state = self.clone();
        host.spawn("stripe-reconciliation", |stop| async move { stripe::reconcile::run(&state, &stop).await });
    }

    /// This replica as a member of a group.
    #[must_use]
    pub fn consumer(&self, stream: &str, group: &'static str) -> Consumer {
        Consumer {
            stream: stream.to_owned(),
            group,
            name: format!("billing-{}", self.random.uuid_v7(&self.clock).simple()),
            batch: BATCH,
            claim_after: CLAIM_AFTER,
            max_deliveries: MAX_DELIVERIES,
            delete_acknowledged: true,
        }
    }
}

/// The way to Stripe. A key of one mode with events of the other would mix play money with real money: that does not start.
fn stripe(config: &BillingConfig, random: &Random) -> anyhow::Result<Option<Transport>> {
    let Some(key) = config.stripe.secret_key.clone() else { return Ok(None) };
    let mode = if config.stripe.livemode { "live" } else { "test" };
    let fits = ["sk", "rk"].iter().any(|kind| key.expose_secret().starts_with(&format!("{kind}_{mode}_")));
    anyhow::ensure!(fits, "STRIPE_SECRET_KEY must be a key of {mode} mode (sk_{mode}_… or rk_{mode}_…), as STRIPE_LIVEMODE says");
    Ok(Some(Transport::new(&config.stripe.api_base, key, config.stripe.requests_per_second, random.clone())?))
}

impl FromRef<AppState> for Authenticator {
    fn from_ref(state: &AppState) -> Self {
        state.authenticator.clone()
    }
}

impl FromRef<AppState> for ServiceAuthenticator {
    fn from_ref(state: &AppState) -> Self {
        state.service_authenticator.clone()
    }
}
