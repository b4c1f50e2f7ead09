//! The limits that a request counts for.

use admission::{Limit, Meter, Window};
use identity::{Actor, Principal};

use crate::config::LimitsConfig;

/// The caller's own limit of requests, and the organization's where there is one.
#[must_use]
pub fn of(caller: &Principal, config: &LimitsConfig) -> Vec<Limit> {
    // The key's own limit is per minute, which the window is unless an operator chose another.
    let own = caller.requests_per_minute.map_or(config.requests_per_window, |own| own.min(config.requests_per_window));
    let who = match caller.actor {
        Actor::ApiKey { api_key_id } => api_key_id.to_string(),
        Actor::User { user_id, .. } => user_id.to_string(),
    };
    let requests = |scope: &str, most: u32| Limit {
        key: Limit::key(caller.organization_id, scope),
        meter: Meter::Requests,
        most: most.into(),
        amount: 1,
        window: Window::Sliding(config.window.0),
        before: 0,
    };
    let organization = config.organization_requests_per_window.map(|most| requests("requests", most));
    [Some(requests(&who, own)), organization].into_iter().flatten().collect()
}
