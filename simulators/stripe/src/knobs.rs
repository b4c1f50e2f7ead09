//! What can be made to go wrong, and how events are delivered.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// The order in which the events of one request, or those held together, are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[clap(rename_all = "snake_case")]
pub enum Order {
    /// As they happened.
    #[default]
    InOrder,
    /// The last first.
    Reversed,
    /// By chance, from the seed.
    Shuffled,
}

/// How events are delivered. The defaults are those of a good day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Order of the events of one request or of one release.
    #[arg(long, value_enum, default_value_t)]
    pub order: Order,
    /// How often each event is delivered beside the first time.
    #[arg(long, default_value_t = 0)]
    pub duplicates: u32,
    /// Milliseconds before each delivery.
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Of a hundred deliveries, how many are lost and never retried; which ones comes from the seed.
    #[arg(long, default_value_t = 0)]
    pub drop_percent: u32,
    /// Keep events back until `POST /_simulator/webhooks/release`.
    #[arg(long)]
    pub hold: bool,
    /// Sign with this secret too, as while a secret is being replaced.
    #[arg(long)]
    pub extra_secret: Vec<String>,
    /// How often a delivery is tried that is not answered with 2xx.
    #[arg(long, default_value_t = 5)]
    pub attempts: u32,
    /// Milliseconds before the second try; doubled with each.
    #[arg(long, default_value_t = 200)]
    pub retry_ms: u64,
    /// Faults of the API.
    #[arg(skip)]
    pub faults: Vec<Fault>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            order: Order::default(),
            duplicates: 0,
            delay_ms: 0,
            drop_percent: 0,
            hold: false,
            extra_secret: Vec::new(),
            attempts: 5,
            retry_ms: 200,
            faults: Vec::new(),
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It is done, and never answered: the caller's time runs out.
    TimeoutAfterEffect,
    /// It is done, and answered with a 500, which the key replays from then on.
    ErrorAfterEffect,
    /// It is not done, and answered with a 500, which the key replays from then on.
    ErrorBeforeEffect,
    /// It is not done: 400, as for a value that Stripe does not take.
    Refused,
    /// It is not done: 429 with `Retry-After`.
    RateLimited,
    /// It is done after a pause of `delay_ms`, during which its key is taken.
    Slow,
}

/// A fault for the next requests of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Method; any by default.
    #[serde(default)]
    pub method: Option<String>,
    /// Begin of the path, as `/v1/customers`; any by default.
    #[serde(default)]
    pub path: String,
    /// For how many requests.
    #[serde(default = "one")]
    pub count: u32,
    /// `Retry-After` of a 429, in seconds.
    #[serde(default = "second")]
    pub retry_after_s: u64,
    /// `Stripe-Should-Retry`, if it is to be sent.
    #[serde(default)]
    pub should_retry: Option<bool>,
    /// Pause of a slow one, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// The parameter that a refused one is about, if it is to be named.
    #[serde(default)]
    pub param: Option<String>,
}

impl Fault {
    /// A fault of the next request whose method and path match.
    #[must_use]
    pub fn next(kind: FaultKind, method: &str, path: &str) -> Self {
        let method = Some(method.to_owned());
        Self { kind, method, path: path.to_owned(), count: 1, retry_after_s: 1, should_retry: None, delay_ms: 0, param: None }
    }
}

impl Knobs {
    /// The fault that falls on a request, if any; it has one time less from then on.
    pub(crate) fn take_fault(&mut self, method: &str, path: &str) -> Option<Fault> {
        let falls = |fault: &&mut Fault| {
            fault.count > 0
                && fault.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
                && path.starts_with(&fault.path)
        };
        let fault = self.faults.iter_mut().find(falls)?;
        fault.count -= 1;
        let taken = fault.clone();
        self.faults.retain(|fault| fault.count > 0);
        Some(taken)
    }
}

const fn one() -> u32 {
    1
}

const fn second() -> u64 {
    1
}
