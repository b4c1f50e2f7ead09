//! How much a key, a user, an organization or a model may do in a time: any number of rules for one request, checked together.

use std::time::Duration;

use contracts::Shard;
use identity::OrganizationId;
use money::TokenUsage;
use serde::{Deserialize, Serialize};

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Requests.
    Requests,
    /// Tokens, in and out: the worst case while a request is in flight, what was used afterwards.
    Tokens,
    /// Micro-units of money, likewise.
    Spend,
}

/// The time in which a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The last so long, exactly, by a log of requests: for [`Meter::Requests`] only.
    Sliding(Duration),
    /// A minute, day or month of the calendar, which ends in so long. Its name is part of the key.
    Calendar(Duration),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Its counter's key, by [`Limit::key`].
    pub key: String,
    /// What it counts.
    pub meter: Meter,
    /// The most that it allows; exactly that much is allowed [B-39].
    pub most: i64,
    /// What this request counts for at most.
    pub amount: i64,
    /// When.
    pub window: Window,
    /// What is known to have been used of a calendar's window: a counter comes to that at least. It is there for what was used while
    /// the limit did not exist, for what others used, and for counters that Redis has lost.
    pub least: i64,
}

impl Limit {
    /// The key of a counter: `scope` says whose it is (`key_…:minute`, `month:2026-11`).
    #[must_use]
    pub fn key(organization: OrganizationId, scope: &str) -> String {
        Shard::of(organization).key(&format!("limit:{organization}:{scope}"))
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self.window {
            Window::Sliding(_) => "log",
            Window::Calendar(_) => "sum",
        }
    }

    pub(crate) fn milliseconds(&self) -> u64 {
        let (Window::Sliding(time) | Window::Calendar(time)) = self.window;
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// What must be known to correct the counter at the end; a log needs no correction.
    #[must_use]
    pub fn counted(&self) -> Option<Counted> {
        let counted = Counted { key: self.key.clone(), meter: self.meter, amount: self.amount };
        matches!(self.window, Window::Calendar(_)).then_some(counted)
    }
}

/// What a request was counted for at its admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The counter.
    pub key: String,
    /// What it counts.
    pub meter: Meter,
    /// How much.
    pub amount: i64,
}

impl Counted {
    /// What the request counts for, now that it is known what was used.
    #[must_use]
    pub fn used(&self, usage: &TokenUsage, price: i64) -> i64 {
        match self.meter {
            Meter::Requests => self.amount,
            Meter::Tokens => i64::try_from(usage.total_input().saturating_add(usage.total_output())).unwrap_or(i64::MAX),
            Meter::Spend => price,
        }
    }
}
