//! The simulator as a part of a test: started on a free port, moved through time, asked what it holds, gone with its handle.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::clock::{Clock, Start};
use crate::idempotency::Keys;
use crate::knobs::Knobs;
use crate::rate::Rate;
use crate::reporting::Reporting;
use crate::settings::{Settings, Settlement};
use crate::state_file::Progress;
use crate::webhooks::{self, Delivery, Sender};
use crate::world::{Origin, World};
use crate::{API_VERSION, router, state_file, time_passes};

/// An endpoint that events are sent to from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to.
    pub url: String,
    /// What they are signed with: one `v1` for each.
    pub secrets: Vec<String>,
}

/// How a simulator starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; by default a free port of the loopback interface.
    pub bind: SocketAddr,
    /// Where a browser finds it; by default where it listens.
    pub public_url: Option<String>,
    /// Ids and all chance come from it.
    pub seed: u64,
    /// What the global clock starts from; by default 1 January 2026, so that a run can be repeated.
    pub start: Start,
    /// Endpoints that exist from the start.
    pub webhooks: Vec<Webhook>,
    /// What goes wrong, and how events are delivered.
    pub knobs: Knobs,
    /// The account's billing settings.
    pub settings: Settings,
    /// Where the account is kept, so that it is the same after a restart; without one it is gone with the process.
    pub state_file: Option<PathBuf>,
    /// Whether nothing is told to anybody before that file has it.
    pub durable: bool,
}

/// 1 January 2026, 00:00 UTC.
const DEFAULT_START: i64 = 1_767_225_600;

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            public_url: None,
            seed: 1,
            start: Start::At(DEFAULT_START),
            webhooks: Vec::new(),
            knobs: Knobs::default(),
            settings: Settings::default(),
            state_file: None,
            durable: false,
        }
    }
}

#[derive(Debug)]
struct Inner {
    world: Mutex<World>,
    keys: Mutex<Keys>,
    knobs: Mutex<Knobs>,
    sender: Sender,
    client: reqwest::Client,
    file: Progress,
    reporting: Reporting,
    rate: Rate,
    requests: AtomicU64,
}

/// A simulator; clones are the same one.
#[derive(Debug, Clone)]
pub struct Simulator(Arc<Inner>);

impl Simulator {
    fn new(options: &Options) -> io::Result<(Self, mpsc::UnboundedReceiver<Vec<Delivery>>)> {
        // Fails when the process has one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().map_err(io::Error::other)?;
        let (sender, queue) = Sender::new(options.seed);
        let mut world = World::new(options.seed, Clock::new(options.start), options.settings.clone());
        world.origin = Origin { version: API_VERSION.to_owned(), ..Origin::default() };
        let mut keys = Keys::default();
        if let Some(path) = &options.state_file {
            state_file::load(path, &mut world, &mut keys, &sender)?;
        }
        for webhook in &options.webhooks {
            crate::endpoints::add(&mut world, &webhook.url, &webhook.secrets);
        }
        let (world, keys, knobs) = (Mutex::new(world), Mutex::new(keys), Mutex::new(options.knobs.clone()));
        let file = Progress::new(options.durable && options.state_file.is_some());
        let (reporting, rate) = (Reporting::default(), Rate::default());
        let inner = Inner { world, keys, knobs, sender, client, file, reporting, rate, requests: AtomicU64::new(0) };
        Ok((Self(Arc::new(inner)), queue))
    }

    /// The account, locked.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keys(&self) -> MutexGuard<'_, Keys> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of which meters and customers an event is being taken.
    pub(crate) fn reporting(&self) -> &Reporting {
        &self.0.reporting
    }

    /// How far the account is in its file.
    pub(crate) fn file(&self) -> &Progress {
        &self.0.file
    }

    /// Waits until all that has happened is in the file, where that is promised.
    pub(crate) async fn kept(&self) {
        let changes = self.world().changes;
        self.0.file.reached(changes).await;
    }

    pub(crate) fn sender(&self) -> &Sender {
        &self.0.sender
    }

    /// What goes wrong at present.
    #[must_use]
    pub fn knobs(&self) -> Knobs {
        self.turn_knobs(|knobs| knobs.clone())
    }

    /// A request of the API came.
    pub(crate) fn count_request(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one more request fits into this second.
    pub(crate) fn admits(&self) -> bool {
        let (limit, now) = {
            let world = self.world();
            (world.settings.requests_per_second, world.clock.now())
        };
        self.0.rate.admits(limit, now)
    }

    /// How many requests of the API came until now, whatever was answered.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Changes what goes wrong.
    pub fn turn_knobs<T>(&self, turn: impl FnOnce(&mut Knobs) -> T) -> T {
        turn(&mut self.0.knobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does what became due on the global clock, as far as it has come.
    pub(crate) fn catch_up(&self, world: &mut World) {
        let origin = world.origin.clone();
        world.origin = Origin { version: API_VERSION.to_owned(), ..Origin::default() };
        let now = world.clock.now();
        time_passes::until(world, "", now);
        world.forget_old_events(now);
        self.hand_over_events(world);
        world.origin = origin;
    }

    /// Gives the events of a request to the sender. The account stays locked, so that they keep the order of the requests.
    pub(crate) fn hand_over_events(&self, world: &mut World) {
        let fresh = std::mem::take(&mut world.fresh_events);
        let deliveries: Vec<Delivery> = fresh.iter().flat_map(|event| webhooks::deliveries(world, event)).collect();
        self.0.sender.take(deliveries, &self.knobs());
    }

    /// Does something to the account as if a request had asked for it.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world();
        world.origin = Origin { version: API_VERSION.to_owned(), ..Origin::default() };
        self.catch_up(&mut world);
        let outcome = act(&mut world);
        self.hand_over_events(&mut world);
        outcome
    }

    /// Moves the global clock to an instant (seconds since 1970) and does what Stripe does on the way; never back.
    pub fn advance_to(&self, to: i64) {
        self.act(|world| time_passes::until(world, "", to));
    }

    /// Sends the named events in this order, once each, and waits for every answer; statuses, `None` where none came.
    pub async fn deliver(&self, events: &[String]) -> Vec<Option<u16>> {
        let mut statuses = Vec::new();
        for event in events {
            let deliveries = webhooks::deliveries(&mut self.world(), event);
            for delivery in deliveries {
                webhooks::attempt(self, &self.0.client, &delivery, 1).await;
                statuses.push(self.0.sender.log().last().and_then(|row| row.status));
            }
        }
        statuses
    }
}

/// The simulator as it is started.
#[derive(Debug)]
pub struct StripeSimulator;

impl StripeSimulator {
    /// Starts a simulator in this process; it ends with its handle.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn start(options: Options) -> io::Result<Running> {
        let (simulator, queue) = Simulator::new(&options)?;
        let listener = TcpListener::bind(options.bind).await?;
        let address = listener.local_addr()?;
        let url = format!("http://{address}");
        simulator.world().public_url = options.public_url.clone().unwrap_or_else(|| url.clone());
        let sending = tokio::spawn(webhooks::run(simulator.clone(), simulator.0.client.clone(), queue));
        let service = router::router(simulator.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, service).await {
                tracing::error!(error.message = %error, "the simulator ended");
            }
        });
        let mut tasks = vec![sending.abort_handle(), serving.abort_handle()];
        if options.start == Start::Now {
            tasks.push(tokio::spawn(time_passes::by_itself(simulator.clone())).abort_handle());
        }
        if let Some(path) = options.state_file.clone() {
            tasks.push(tokio::spawn(state_file::keep(simulator.clone(), path)).abort_handle());
        }
        Ok(Running { url, address, simulator, tasks, state_file: options.state_file })
    }
}

/// A simulator that listens. Dropping it closes the port.
#[derive(Debug)]
pub struct Running {
    /// What a client takes for `https://api.stripe.com`: `http://127.0.0.1:<port>`.
    pub url: String,
    /// Where it listens.
    pub address: SocketAddr,
    simulator: Simulator,
    tasks: Vec<AbortHandle>,
    state_file: Option<PathBuf>,
}

impl Running {
    /// Keeps the account in its file now, for whoever ends the process next.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> io::Result<()> {
        self.state_file.as_ref().map_or(Ok(()), |path| state_file::save(&self.simulator, path))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl std::ops::Deref for Running {
    type Target = Simulator;

    fn deref(&self) -> &Simulator {
        &self.simulator
    }
}

impl Simulator {
    /// The global clock, in seconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.world().clock.now()
    }

    /// Moves the global clock forward by so many seconds.
    pub fn advance(&self, seconds: i64) {
        self.advance_to(self.now().saturating_add(seconds));
    }

    /// From now on tax of so many percent is computed where that is asked of Stripe.
    pub fn tax_automatically(&self, percent: i64) {
        self.world().settings.automatic_tax_percent = percent;
    }

    /// From now on the account's balance is settled in this currency (as `usd`), whatever is paid in: so many of its smallest units are given
    /// for a million of another currency's.
    pub fn settles_in(&self, currency: &str, per_million: i64) {
        self.world().settings.settlement = Some(Settlement { currency: currency.to_owned(), per_million });
    }

    /// Waits until no event is on its way to an endpoint.
    pub async fn settled(&self) {
        self.0.sender.settled().await;
    }

    /// All tries to deliver an event, oldest first.
    #[must_use]
    pub fn deliveries(&self) -> Vec<webhooks::DeliveryRow> {
        self.0.sender.log()
    }

    /// Sends the events that `hold` kept back, in the order of the knobs; how many there were.
    #[must_use]
    pub fn release(&self) -> usize {
        self.0.sender.release(&self.knobs())
    }

    /// All events that are kept, oldest first, as the API shows them.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.world().all("event").map(crate::shown::shown).collect()
    }

    /// Those events after so many of all that there ever were whose kind is `heard`, oldest first, as the API shows them; and how many
    /// there were by now, to ask with the next time. What was forgotten meanwhile is not among them.
    #[must_use]
    pub fn events_after(&self, count: usize, heard: impl Fn(&str) -> bool) -> (Vec<Value>, usize) {
        let world = self.world();
        let (events, count) = world.events_after(count);
        let heard = events.filter(|event| event["type"].as_str().is_some_and(&heard));
        (heard.map(crate::shown::shown).collect(), count)
    }

    /// Any object as the API shows it; null where there is none.
    #[must_use]
    pub fn object(&self, id: &str) -> Value {
        self.world().find(id).map_or(json!(null), crate::shown::shown)
    }
}
