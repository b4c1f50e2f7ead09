//! How much a key, a user, an organization or a model may do in a time: any number of rules for one request, checked together.

use std::time::Duration;

use contracts::Shard;
use contracts::entitlements::{LimitPeriod, LimitScope};
use identity::OrganizationId;
use money::TokenUsage;
use redis::RedisError;
use serde::{Deserialize, Serialize};

use crate::Admissions;

/// So long after its window it can be seen that a limit refused.
const LOOKED_AT_WITHIN: Duration = Duration::from_mins(10);

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

    /// The key of what was spent: by whom or for what, in which period, since when it counts (seconds since 1970). The text of a tag comes
    /// last: nothing that it holds can be taken for another part.
    #[must_use]
    pub fn spend_key(organization: OrganizationId, scope: LimitScope, id: &str, period: LimitPeriod, since: i64) -> String {
        let (period, scope) = (period.as_str(), scope.as_str());
        Self::key(organization, &format!("spend:{period}:{since}:{scope}:{id}"))
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

impl Admissions {
    /// Notes that a limit refused a request, until a while after its window: whoever watches over the limit cannot see that in what was
    /// spent, which stays below it. A raised limit has refused nobody yet.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn note_refused(&self, limit: &Limit) -> Result<(), RedisError> {
        let mut note = redis::cmd("SET");
        let kept = limit.milliseconds().saturating_add(u64::try_from(LOOKED_AT_WITHIN.as_millis()).unwrap_or(u64::MAX));
        note.arg(refused_key(&limit.key, limit.most)).arg(1).arg("NX").arg("PX").arg(kept);
        note.query_async(&mut self.redis.connection()).await
    }

    /// Whether limits have refused a request in their windows: of each its key and the most that it allows.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn have_refused(&self, limits: &[(String, i64)]) -> Result<Vec<bool>, RedisError> {
        if limits.is_empty() {
            return Ok(Vec::new());
        }
        let mut questions = redis::pipe();
        for (key, most) in limits {
            questions.exists(refused_key(key, *most));
        }
        questions.query_async(&mut self.redis.connection()).await
    }
}

/// Beside the counters: no text of a tag makes a counter's key of it.
fn refused_key(key: &str, most: i64) -> String {
    key.replacen("limit:", &format!("refused:{most}:"), 1)
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
