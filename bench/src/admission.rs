//! Admission and settlement alone: from a lease, as chat-service does it, beside a hold for each request.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use admission::{Admission, Admissions, End, Note, Settlement, Verdict};
use anyhow::{Context, Result, bail, ensure};
use chassis::http::Client;
use chassis::redis::Redis;
use chassis::{Clock, Random};
use contracts::billing::{BillingClient, SCOPE_RESERVATIONS_WRITE, SERVICE};
use contracts::leases::LeaseRequest;
use contracts::usage::{CountedBy, Outcome, UsageEvent};
use contracts::{LeaseId, RequestId, Shard};
use futures::future::try_join_all;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt, stream};
use identity::jwt::SigningKey;
use identity::{OrganizationId, ServiceTokens};
use money::TokenUsage;
use serde_json::{Value, json};

use crate::load::{Measured, summary};

/// What is taken for a request, and what it turns out to cost, in micro-units.
const RESERVED: i64 = 1500;
const PRICE: i64 = 150;
/// How often a request of an open loop is tried.
const TRIES: usize = 5;

/// How money is had for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Two scripts in Redis.
    Lease,
    /// Two calls of billing-service, a transaction of Postgres each.
    CallPerRequest,
}

/// Microseconds of one request, since when it should have begun.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Until it was known whether it may go on.
    admitted: u64,
    /// Until it was settled too.
    settled: u64,
}

/// What requests took that began at instants of their own, from those instants on.
#[derive(Debug, Clone)]
pub struct OpenLoop {
    /// Until the thread that begins them was awake: so much is the machine's, and in all that follows.
    pub woken: Measured,
    /// Until it was known whether they may go on.
    pub admitted: Measured,
    /// Until they were settled too.
    pub settled: Measured,
}

/// A gateway without a provider.
#[derive(Debug)]
pub struct Gateway {
    redis: Redis,
    admissions: Admissions,
    billing: BillingClient,
    tokens: ServiceTokens,
    http: reqwest::Client,
    billing_url: String,
    clock: Clock,
    random: Random,
    wallets: Vec<OrganizationId>,
    next: AtomicUsize,
    filling: Arc<Mutex<HashSet<OrganizationId>>>,
}

impl Gateway {
    /// With so many wallets, each of which has its lease already, of so many micro-units at least.
    ///
    /// # Errors
    /// When a service does not answer.
    pub async fn start(
        (issuer, auth_url, billing_url): (&str, &str, &str),
        key: &str,
        redis: Redis,
        http: reqwest::Client,
        wallets: usize,
        each_micros: i64,
    ) -> Result<Self> {
        let (clock, random) = (Clock::system(), Random::system());
        let wait = Duration::from_secs(10);
        let key = SigningKey::from_pem("chat-service", key).map_err(|_| anyhow::anyhow!("a key cannot be read"))?;
        let tokens = ServiceTokens::new("chat-service", issuer, key, Client::new(auth_url, wait)?, clock.clone(), random.clone());
        let gateway = Self {
            admissions: Admissions::new(redis.clone()),
            redis,
            billing: BillingClient::new(Client::new(billing_url, wait)?, tokens.clone()),
            tokens,
            http,
            billing_url: billing_url.to_owned(),
            wallets: (0..wallets).map(|_| OrganizationId::new(&clock, &random)).collect(),
            next: AtomicUsize::new(0),
            filling: Arc::default(),
            clock,
            random,
        };
        stream::iter(&gateway.wallets)
            .map(|wallet| {
                let request = LeaseRequest { organization_id: *wallet, needed_micros: each_micros, seen: None, model: None };
                let gateway = &gateway;
                async move { gateway.billing.lease(&request).await }
            })
            .buffer_unordered(8)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        Ok(gateway)
    }

    /// The wallets take turns.
    fn wallet(&self) -> OrganizationId {
        self.wallets[self.next.fetch_add(1, Ordering::Relaxed) % self.wallets.len()]
    }

    /// One request, admitted and settled; microseconds of both together.
    async fn request(&self, way: Way) -> Result<u64> {
        let started = Instant::now();
        match way {
            Way::Lease => drop(self.by_lease(started).await?),
            Way::CallPerRequest => self.by_calls(self.wallet(), RequestId::new(&self.clock, &self.random)).await?,
        }
        Ok(u64::try_from(started.elapsed().as_micros())?)
    }

    async fn by_lease(&self, began: Instant) -> Result<Times> {
        let (organization_id, request_id) = (self.wallet(), RequestId::new(&self.clock, &self.random));
        let now = self.clock.now();
        let mut event = UsageEvent {
            request_id,
            lease_id: LeaseId::from_uuid(request_id.uuid()),
            reserved_micros: RESERVED,
            rate_card_id: 2,
            organization_id,
            api_key_id: None,
            user_id: None,
            model: "sim-large".into(),
            provider: "bench".into(),
            usage: TokenUsage::default(),
            counted_by: CountedBy::Reported,
            outcome: Outcome::Completed,
            started_at: now,
            ended_at: now,
            tags: [].into(),
        };
        let note = Note { event: event.clone(), counted: Vec::new(), traceparent: None };
        let deadline = now + Duration::from_mins(5);
        let admission = Admission { request_id, organization_id, cost_micros: RESERVED, now, deadline, limits: &[], note: &note };
        event.lease_id = loop {
            let request = match self.admissions.admit(&admission).await? {
                Verdict::Admitted { lease, of_model, low } => {
                    if low {
                        self.fill_in_passing(admission.low(lease, of_model));
                    }
                    break lease.lease_id;
                }
                Verdict::Short { all, model } => admission.short(all, model),
                refused => bail!("{refused:?}"),
            };
            self.billing.lease(&request).await?;
        };
        let admitted = u64::try_from(began.elapsed().as_micros())?;
        event.usage = TokenUsage::text(10, 10);
        let settlement = Settlement { event: &event, price_micros: PRICE, end: End::Used, counted: &[], traceparent: None };
        ensure!(self.admissions.settle(&settlement).await?.taken_micros >= PRICE, "a settlement took too little");
        Ok(Times { admitted, settled: u64::try_from(began.elapsed().as_micros())? })
    }

    /// As chat-service does it: nobody waits for it, and one asks for an organization at a time.
    fn fill_in_passing(&self, request: LeaseRequest) {
        if !self.filling.lock().is_ok_and(|mut filling| filling.insert(request.organization_id)) {
            return;
        }
        let (billing, filling) = (self.billing.clone(), Arc::clone(&self.filling));
        tokio::spawn(async move {
            // Whoever finds too little asks again, and waits.
            let _ = billing.lease(&request).await;
            if let Ok(mut filling) = filling.lock() {
                filling.remove(&request.organization_id);
            }
        });
    }

    /// Asks so often a second for `time`, whether or not the answers come: what a request waits for the ones before it is counted.
    ///
    /// # Errors
    /// When one request fails.
    pub async fn measure_at(&self, rate: f64, time: Duration) -> Result<OpenLoop> {
        ensure!(rate >= 1.0 && rate.is_finite(), "less than a request a second");
        let (started, apart) = (Instant::now(), Duration::from_secs_f64(1.0 / rate));
        let count = u32::try_from((time.as_nanos() / apart.as_nanos()).max(1))?;
        let (begin, mut beginnings) = tokio::sync::mpsc::unbounded_channel();
        // A thread, since the runtime's own clock has steps of a millisecond, which is as long as what is measured.
        let pacer = std::thread::spawn(move || {
            let mut late = Vec::with_capacity(count as usize);
            for intended in (0..count).map(|number| started + apart * number) {
                std::thread::sleep(intended.saturating_duration_since(Instant::now()));
                late.push(u64::try_from(intended.elapsed().as_micros()).unwrap_or(u64::MAX));
                if begin.send(intended).is_err() {
                    break;
                }
            }
            late
        });
        let (mut running, mut times) = (FuturesUnordered::new(), Vec::<Times>::new());
        loop {
            tokio::select! {
                Some(intended) = beginnings.recv() => running.push(self.patiently(intended)),
                Some(done) = running.next() => times.push(done?),
                else => break,
            }
        }
        let late = pacer.join().map_err(|_| anyhow::anyhow!("the pacer panicked"))?;
        let taken = started.elapsed();
        self.posted().await?;
        let of = |lane, times| summary(lane, "open loop", 0, 0, times, taken);
        Ok(OpenLoop {
            woken: of("nothing", late),
            admitted: of("admission", times.iter().map(|times| times.admitted).collect()),
            settled: of("admission and settlement", times.iter().map(|times| times.settled).collect()),
        })
    }

    /// Where Redis does not answer in time a gateway is asked again: the caller has waited for both.
    async fn patiently(&self, intended: Instant) -> Result<Times> {
        let mut tries = 0;
        loop {
            match self.by_lease(intended).await {
                Ok(times) => return Ok(times),
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => tries += 1,
            }
        }
    }

    async fn by_calls(&self, organization: OrganizationId, request: RequestId) -> Result<()> {
        let token = self.tokens.get(SERVICE, SCOPE_RESERVATIONS_WRITE).await.map_err(|_| anyhow::anyhow!("no service token"))?;
        let now = self.clock.now();
        let body = json!({"request_id": request, "organization_id": organization, "api_key_id": null, "user_id": null, "model": "sim-large",
            "provider": "bench", "max_input_tokens": 100, "max_output_tokens": 100, "audio": false, "expires_at": now + Duration::from_mins(5)});
        let url = format!("{}/internal/v1/reservations", self.billing_url);
        let held: Value = self.http.post(&url).bearer_auth(&token).json(&body).send().await?.error_for_status()?.json().await?;
        let id = held["id"].as_str().context("a reservation")?;
        let body = json!({"usage": {"input_tokens": 10, "output_tokens": 10}, "counted_by": "reported", "outcome": "completed",
            "started_at": now, "ended_at": now});
        self.http.post(format!("{url}/{id}/settle")).bearer_auth(&token).json(&body).send().await?.error_for_status()?;
        Ok(())
    }

    /// So many requests, admitted and settled as fast as Redis does it.
    ///
    /// # Errors
    /// When one fails.
    pub async fn settle(&self, requests: usize) -> Result<()> {
        let each = (0..requests).map(|_| self.by_lease(Instant::now()));
        stream::iter(each).buffer_unordered(32).try_for_each(|_| async { Ok(()) }).await
    }

    /// Waits until billing-service has posted all that was settled: the next measurement must not pay for this one.
    async fn posted(&self) -> Result<()> {
        let mut connection = self.redis.connection();
        for shard in Shard::all() {
            while redis::cmd("XLEN").arg(shard.usage_stream()).query_async::<u64>(&mut connection).await? > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Asks with `concurrency` clients for `time`. Also says how many requests a second that were until the last was posted as well: more than
    /// that nobody can go on with.
    ///
    /// # Errors
    /// When one request fails.
    pub async fn measure(&self, way: Way, kind: &'static str, concurrency: usize, time: Duration, round: usize) -> Result<(Measured, f64)> {
        let started = Instant::now();
        let clients = (0..concurrency).map(|_| async {
            let mut times = Vec::new();
            while started.elapsed() < time {
                times.push(self.request(way).await?);
            }
            anyhow::Ok(times)
        });
        let times: Vec<u64> = try_join_all(clients).await?.into_iter().flatten().collect();
        let taken = started.elapsed();
        self.posted().await?;
        let lane = if way == Way::Lease { "lease" } else { "call per request" };
        let measured = summary(lane, kind, concurrency, round, times, taken);
        let carried = measured.rps * taken.as_secs_f64() / started.elapsed().as_secs_f64();
        Ok((measured, carried))
    }
}
