//! The limits that a request counts for: the operator's, the credential's own, the plan's and those of hard budgets.

mod spend;
mod tags;

use std::time::Duration;

use admission::{Limit, Meter, Window};
use chrono::{DateTime, Utc};
use contracts::entitlements::{Entitlements, LimitPeriod, LimitScope};
use identity::{Actor, Principal};

use crate::config::LimitsConfig;
use crate::error::ApiError;

pub use tags::Tags;

const MINUTE: Duration = Duration::from_mins(1);

/// A request, as far as limits are about it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'r> {
    /// Who asks.
    pub caller: &'r Principal,
    /// What is asked.
    pub model: &'r str,
    /// What it is tagged with.
    pub tags: &'r Tags,
    /// The most tokens that it can use, in and out.
    pub tokens: u64,
    /// The most that it can cost, in micro-units.
    pub cost_micros: i64,
    /// When it was admitted.
    pub at: DateTime<Utc>,
}

/// What a limit is about, for whoever it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Requests in a time.
    Requests,
    /// Tokens in a minute.
    Tokens,
    /// Money in a period.
    Spend(LimitScope, LimitPeriod),
}

/// The limits of one request.
#[derive(Debug, Default)]
pub struct Limits {
    /// As the admission takes them.
    pub limits: Vec<Limit>,
    rules: Vec<Rule>,
}

impl Limits {
    /// All that the request counts for.
    #[must_use]
    pub fn of(subject: &Subject<'_>, config: &LimitsConfig, entitlements: &Entitlements) -> Self {
        let mut limits = Self::default();
        limits.requests(subject, config, entitlements);
        limits.tokens(subject, config, entitlements);
        limits.spend(subject, &entitlements.spend_limits);
        limits
    }

    fn push(&mut self, rule: Rule, limit: Limit) {
        self.rules.push(rule);
        self.limits.push(limit);
    }

    fn requests(&mut self, subject: &Subject<'_>, config: &LimitsConfig, entitlements: &Entitlements) {
        // The key's own limit is per minute, which the window is unless an operator chose another.
        let own = subject.caller.requests_per_minute.map_or(config.requests_per_window, |own| own.min(config.requests_per_window));
        let who = who(subject.caller);
        let limits = [
            Some((who.as_str(), own, config.window.0)),
            config.organization_requests_per_window.map(|most| ("requests", most, config.window.0)),
            entitlements.requests_per_minute.map(|most| ("plan:requests", most, MINUTE)),
        ];
        for (scope, most, window) in limits.into_iter().flatten() {
            let key = Limit::key(subject.caller.organization_id, scope);
            let window = Window::Sliding(window);
            self.push(Rule::Requests, Limit { key, meter: Meter::Requests, most: most.into(), amount: 1, window, least: 0 });
        }
    }

    fn tokens(&mut self, subject: &Subject<'_>, config: &LimitsConfig, entitlements: &Entitlements) {
        let (since, end) = LimitPeriod::Minute.bounds(subject.at);
        let who = who(subject.caller);
        let limits = [
            (who.as_str(), config.tokens_per_minute),
            ("all", config.organization_tokens_per_minute),
            ("plan", entitlements.tokens_per_minute),
        ];
        for (scope, most) in limits.into_iter().filter_map(|(scope, most)| Some((scope, most?))) {
            let key = Limit::key(subject.caller.organization_id, &format!("tokens:{}:{scope}", since.timestamp()));
            let amount = i64::try_from(subject.tokens).unwrap_or(i64::MAX);
            let window = Window::Calendar((end - subject.at).to_std().unwrap_or_default());
            self.push(Rule::Tokens, Limit { key, meter: Meter::Tokens, most: most.into(), amount, window, least: 0 });
        }
    }

    /// The limit of this index, if it is one of money: those who set it want to know that it refuses.
    #[must_use]
    pub fn of_spending(&self, limit: usize) -> Option<&Limit> {
        matches!(self.rules.get(limit), Some(Rule::Spend(..))).then(|| self.limits.get(limit)).flatten()
    }

    /// What the client is told whom the limit of this index refuses.
    #[must_use]
    pub fn refusal(&self, limit: usize, retry_after: Duration) -> ApiError {
        match self.rules.get(limit) {
            Some(Rule::Requests) => ApiError::RateLimited(retry_after),
            Some(Rule::Tokens) => ApiError::TokensLimited(retry_after),
            Some(Rule::Spend(scope, period)) => ApiError::SpendLimit(*scope, *period, retry_after),
            None => ApiError::Internal("a limit refused that was not given"),
        }
    }
}

/// The key or the user who asks.
fn who(caller: &Principal) -> String {
    match caller.actor {
        Actor::ApiKey { api_key_id } => api_key_id.to_string(),
        Actor::User { user_id, .. } => user_id.to_string(),
    }
}
