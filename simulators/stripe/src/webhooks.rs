//! Delivery of events to endpoints: in the order, with the doubles, delays, losses and signatures that the knobs ask for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::ids::Source;
use crate::knobs::{Knobs, Order};
use crate::shown::shown;
use crate::simulator::Simulator;
use crate::world::{World, text};

pub(crate) mod signature;

/// Stripe gives up on an answer after so long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An event on its way to an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Delivery {
    /// Among those that were given to the sender; 0 before.
    #[serde(default)]
    number: u64,
    event: String,
    kind: String,
    url: String,
    secrets: Vec<String>,
    body: String,
    lost: bool,
}

/// A try to deliver an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryRow {
    /// `evt_…`
    pub event: String,
    /// The event's type.
    pub kind: String,
    /// Where it was sent.
    pub url: String,
    /// From 1.
    pub attempt: u32,
    /// Status of the answer; none where there was no answer, or the delivery was lost on purpose.
    pub status: Option<u16>,
}

/// The sender's side that requests hand events to.
#[derive(Debug)]
pub(crate) struct Sender {
    queue: mpsc::UnboundedSender<Vec<Delivery>>,
    held: Mutex<Vec<Delivery>>,
    /// What is on its way and not taken yet, by number.
    pending: Mutex<BTreeMap<u64, Delivery>>,
    numbers: AtomicU64,
    chance: Mutex<Source>,
    open: watch::Sender<usize>,
    log: Mutex<Vec<DeliveryRow>>,
}

impl Sender {
    pub(crate) fn new(seed: u64) -> (Self, mpsc::UnboundedReceiver<Vec<Delivery>>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let chance = Mutex::new(Source::new(!seed));
        (
            Self {
                queue,
                held: Mutex::default(),
                pending: Mutex::default(),
                numbers: AtomicU64::new(1),
                chance,
                open: watch::Sender::new(0),
                log: Mutex::default(),
            },
            receiver,
        )
    }

    /// Takes the events of one request.
    pub(crate) fn take(&self, deliveries: Vec<Delivery>, knobs: &Knobs) {
        if deliveries.is_empty() {
            return;
        }
        if knobs.hold {
            self.held.lock().unwrap_or_else(PoisonError::into_inner).extend(deliveries);
        } else {
            self.send(deliveries, knobs);
        }
    }

    /// Sends what was held back, in the order of the knobs; how many there were.
    pub(crate) fn release(&self, knobs: &Knobs) -> usize {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        let count = held.len();
        self.send(held, knobs);
        count
    }

    fn send(&self, mut deliveries: Vec<Delivery>, knobs: &Knobs) {
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        deliveries = deliveries.into_iter().flat_map(|one| std::iter::repeat_n(one, knobs.duplicates as usize + 1)).collect();
        match knobs.order {
            Order::InOrder => {}
            Order::Reversed => deliveries.reverse(),
            Order::Shuffled => chance.shuffle(&mut deliveries),
        }
        for delivery in &mut deliveries {
            delivery.lost = chance.below(100) < knobs.drop_percent as usize;
            delivery.number = self.numbers.fetch_add(1, Ordering::Relaxed);
        }
        let sent = deliveries.iter().map(|delivery| (delivery.number, delivery.clone()));
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).extend(sent);
        self.open.send_modify(|open| *open += deliveries.len());
        if let Err(refused) = self.queue.send(deliveries) {
            self.open.send_modify(|open| *open -= refused.0.len());
        }
    }

    /// Waits until nothing is on its way.
    pub(crate) async fn settled(&self) {
        // The sender is ours: the channel cannot close while it is waited for.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// All tries so far.
    pub(crate) fn log(&self) -> Vec<DeliveryRow> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, delivery: &Delivery, attempt: u32, status: Option<u16>) {
        let Delivery { event, kind, url, .. } = delivery.clone();
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(DeliveryRow { event, kind, url, attempt, status });
    }

    /// What was not taken yet, and what is held back.
    pub(crate) fn remember(&self) -> (Vec<Delivery>, Vec<Delivery>) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        (pending, self.held.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Sends what was on its way when the process ended, in its order, and holds back what was held.
    pub(crate) fn recall(&self, pending: Vec<Delivery>, held: Vec<Delivery>) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).extend(held);
        self.send(pending, &Knobs::default());
    }

    /// Rises whenever something is sent, and falls when it was taken: with the number of what is held, different after each change.
    pub(crate) fn changes(&self) -> (u64, usize, usize) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).len();
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).len();
        (self.numbers.load(Ordering::Relaxed), pending, held)
    }

    fn ended(&self, delivery: &Delivery) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&delivery.number);
        self.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// The deliveries of an event: one for each endpoint that asks for its type.
pub(crate) fn deliveries(world: &mut World, event: &str) -> Vec<Delivery> {
    let Some(kind) = world.find(event).map(|event| text(event, "type")) else { return Vec::new() };
    let wants = |endpoint: &&Value| {
        let listed = endpoint["enabled_events"].as_array();
        endpoint["status"] == "enabled" && listed.is_some_and(|listed| listed.iter().any(|name| *name == kind || *name == "*"))
    };
    let endpoints: Vec<Value> = world.all("webhook_endpoint").filter(wants).cloned().collect();
    let Some(mut object) = world.find(event).filter(|_| !endpoints.is_empty()).cloned() else { return Vec::new() };
    object["pending_webhooks"] = endpoints.len().into();
    world.put(&object);
    let body = format!("{:#}", shown(&object));
    let to = |endpoint: &Value| Delivery {
        number: 0,
        event: event.to_owned(),
        kind: kind.clone(),
        url: text(endpoint, "url"),
        secrets: world.endpoint_secrets.get(&text(endpoint, "id")).cloned().unwrap_or_default(),
        body: body.clone(),
        lost: false,
    };
    endpoints.iter().map(to).collect()
}

/// Delivers until the queue ends. One after the other, so that an order is an order; only retries overtake.
pub(crate) async fn run(simulator: Simulator, client: reqwest::Client, mut queue: mpsc::UnboundedReceiver<Vec<Delivery>>) {
    while let Some(batch) = queue.recv().await {
        for delivery in batch {
            let knobs = simulator.knobs();
            tokio::time::sleep(Duration::from_millis(knobs.delay_ms)).await;
            if delivery.lost {
                simulator.sender().note(&delivery, 1, None);
                simulator.sender().ended(&delivery);
            } else if attempt(&simulator, &client, &delivery, 1).await {
                simulator.sender().ended(&delivery);
            } else {
                tokio::spawn(retry(simulator.clone(), client.clone(), delivery));
            }
        }
    }
}

async fn retry(simulator: Simulator, client: reqwest::Client, delivery: Delivery) {
    let knobs = simulator.knobs();
    let mut pause = Duration::from_millis(knobs.retry_ms);
    for number in 2..=knobs.attempts {
        tokio::time::sleep(pause).await;
        if attempt(&simulator, &client, &delivery, number).await {
            break;
        }
        pause = pause.saturating_mul(2);
    }
    simulator.sender().ended(&delivery);
}

/// Sends an event once; whether it was taken.
pub(crate) async fn attempt(simulator: &Simulator, client: &reqwest::Client, delivery: &Delivery, number: u32) -> bool {
    simulator.kept().await;
    let time = simulator.world().clock.signing_time();
    let extra = simulator.knobs().extra_secret;
    let secrets: Vec<&str> = delivery.secrets.iter().chain(&extra).map(String::as_str).collect();
    let request = client
        .post(&delivery.url)
        .timeout(TIMEOUT)
        .header("content-type", "application/json; charset=utf-8")
        .header("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
        .header("stripe-signature", signature::header(&secrets, time, delivery.body.as_bytes()))
        .body(delivery.body.clone());
    let status = match request.send().await {
        Ok(response) => Some(response.status().as_u16()),
        Err(error) => {
            tracing::warn!(error.message = %error, event.id = delivery.event, "an event could not be delivered");
            None
        }
    };
    simulator.sender().note(delivery, number, status);
    status.is_some_and(|status| (200..300).contains(&status))
}
