//! Limits of spending, from plans and hard budgets.

use std::collections::BTreeMap;

use admission::{Limit, Meter, Window};
use contracts::entitlements::{LimitPeriod, LimitScope, SpendLimit};

use super::{Limits, Rule, Subject};

/// What leases, and so all prices, are in.
const CURRENCY: &str = "USD";

impl Limits {
    /// Of several limits for the same, the lowest: they share a counter, which must count a request once.
    pub(super) fn spend(&mut self, subject: &Subject<'_>, limits: &[SpendLimit]) {
        let mut lowest: BTreeMap<(LimitScope, &str, LimitPeriod), &SpendLimit> = BTreeMap::new();
        // What is spent in one currency is nothing of another: a limit in it has nothing to count.
        for limit in limits.iter().filter(|limit| limit.currency == CURRENCY && is_for(limit, subject)) {
            let known = lowest.entry((limit.scope, limit.id.as_str(), limit.period)).or_insert(limit);
            if limit.limit_micros < known.limit_micros {
                *known = limit;
            }
        }
        for ((scope, id, period), limit) in lowest {
            let (since, end) = period.bounds(subject.at);
            // What was spent in a period that is over says nothing about this one.
            let before = limit.spent.filter(|spent| spent.since == since).map_or(0, |spent| spent.micros);
            let key = Limit::key(subject.caller.organization_id, &key(scope, id, period, since.timestamp()));
            let window = Window::Calendar((end - subject.at).to_std().unwrap_or_default());
            let limit = Limit { key, meter: Meter::Spend, most: limit.limit_micros, amount: subject.cost_micros, window, before };
            self.push(Rule::Spend(scope, period), limit);
        }
    }
}

/// The text of a tag comes last: nothing that it holds can be taken for another part.
fn key(scope: LimitScope, id: &str, period: LimitPeriod, since: i64) -> String {
    let period = match period {
        LimitPeriod::Minute => "minute",
        LimitPeriod::Day => "day",
        LimitPeriod::Month => "month",
    };
    let scope = match scope {
        LimitScope::Organization => "organization",
        LimitScope::User => "user",
        LimitScope::ApiKey => "api_key",
        LimitScope::Tag => "tag",
    };
    format!("spend:{period}:{since}:{scope}:{id}")
}

fn is_for(limit: &SpendLimit, subject: &Subject<'_>) -> bool {
    match limit.scope {
        LimitScope::Organization => true,
        LimitScope::User => subject.caller.user_id().is_some_and(|user| user.to_string() == limit.id),
        LimitScope::ApiKey => subject.caller.api_key_id().is_some_and(|key| key.to_string() == limit.id),
        LimitScope::Tag => subject.tags.contains(&limit.id),
    }
}
