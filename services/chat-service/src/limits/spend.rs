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
            let least = limit.spent.filter(|spent| spent.since == since).map_or(0, |spent| spent.micros);
            let key = Limit::spend_key(subject.caller.organization_id, scope, id, period, since.timestamp());
            let window = Window::Calendar((end - subject.at).to_std().unwrap_or_default());
            let limit = Limit { key, meter: Meter::Spend, most: limit.limit_micros, amount: subject.cost_micros, window, least };
            self.push(Rule::Spend(scope, period), limit);
        }
    }
}

fn is_for(limit: &SpendLimit, subject: &Subject<'_>) -> bool {
    match limit.scope {
        LimitScope::Organization => true,
        LimitScope::User => subject.caller.user_id().is_some_and(|user| user.to_string() == limit.id),
        LimitScope::ApiKey => subject.caller.api_key_id().is_some_and(|key| key.to_string() == limit.id),
        LimitScope::Model => subject.model == limit.id,
        LimitScope::Tag => subject.tags.names().contains(&limit.id),
    }
}

#[cfg(test)]
mod tests {
    use chassis::{Clock, Random};
    use contracts::entitlements::Spent;
    use http::{HeaderMap, HeaderValue};
    use identity::{Actor, ApiKeyId, OrganizationId, Principal, Scopes, SessionId, UserId};

    use super::*;
    use crate::limits::Tags;

    /// Seventeen micro-units of model `m`, tagged `night` and `day`.
    fn limits(actor: Actor, limits: &[SpendLimit], at: &str) -> Vec<(LimitScope, LimitPeriod, Limit)> {
        let organization_id = OrganizationId::from_uuid(uuid::Uuid::nil());
        let caller = Principal { organization_id, actor, scopes: Scopes::all(), requests_per_minute: None };
        let mut headers = HeaderMap::new();
        headers.insert("x-trivet-tags", HeaderValue::from_static("night,day"));
        let tags = Tags::read(&headers).expect("tags");
        let at = at.parse().expect("an instant");
        let subject = Subject { caller: &caller, model: "m", tags: &tags, tokens: 5, cost_micros: 17, at };
        let mut all = Limits::default();
        all.spend(&subject, limits);
        let rules = all.rules.iter().map(|rule| match rule {
            Rule::Spend(scope, period) => (*scope, *period),
            other => panic!("{other:?}"),
        });
        rules.zip(all.limits).map(|((scope, period), limit)| (scope, period, limit)).collect()
    }

    fn limit(scope: LimitScope, id: &str, limit_micros: i64) -> SpendLimit {
        SpendLimit { scope, id: id.into(), period: LimitPeriod::Month, limit_micros, currency: "USD".into(), spent: None }
    }

    /// [B19] Never wider and never narrower than it was meant.
    #[test]
    fn a_limit_counts_for_those_whom_it_names_and_for_nobody_else() {
        let (clock, random) = (Clock::system(), Random::seeded(1));
        let (user, key) = (UserId::new(&clock, &random), ApiKeyId::new(&clock, &random));
        let all = [
            limit(LimitScope::Organization, "", 1),
            limit(LimitScope::User, &user.to_string(), 2),
            limit(LimitScope::User, &UserId::new(&clock, &random).to_string(), 0),
            limit(LimitScope::ApiKey, &key.to_string(), 3),
            limit(LimitScope::ApiKey, &ApiKeyId::new(&clock, &random).to_string(), 0),
            limit(LimitScope::Model, "m", 4),
            limit(LimitScope::Model, "M", 0),
            limit(LimitScope::Tag, "night", 5),
            limit(LimitScope::Tag, "nigh", 0),
        ];
        let counted = |actor| limits(actor, &all, "2030-01-01T00:00:00Z").into_iter().map(|(.., limit)| limit.most).collect::<Vec<_>>();
        assert_eq!(counted(Actor::User { user_id: user, session_id: SessionId::new(&clock, &random) }), [1, 2, 4, 5]);
        assert_eq!(counted(Actor::ApiKey { api_key_id: key }), [1, 3, 4, 5]);
    }

    #[test]
    fn each_period_has_a_counter_of_its_own_which_ends_with_it() {
        let periods = [LimitPeriod::Minute, LimitPeriod::Day, LimitPeriod::Month];
        let all = periods.map(|period| SpendLimit { period, ..limit(LimitScope::Organization, "", 1) });
        let key = Actor::ApiKey { api_key_id: ApiKeyId::from_uuid(uuid::Uuid::nil()) };
        let last = limits(key, &all, "2028-02-29T23:59:59Z");
        let next = limits(key, &all, "2028-03-01T00:00:00Z");
        let seconds = |limits: &[(LimitScope, LimitPeriod, Limit)]| {
            limits.iter().map(|(.., limit)| if let Window::Calendar(left) = limit.window { left.as_secs() } else { 0 }).collect::<Vec<_>>()
        };
        assert_eq!((seconds(&last), seconds(&next)), (vec![1, 1, 1], vec![60, 86_400, 31 * 86_400]));
        let mut keys: Vec<String> = last.into_iter().chain(next).map(|(.., limit)| limit.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn of_several_for_the_same_the_lowest_is_left_and_what_was_spent_is_of_this_period() {
        let spent = |since: &str, micros| Some(Spent { since: since.parse().expect("an instant"), micros });
        let low = SpendLimit { spent: spent("2030-01-01T00:00:00Z", 9), ..limit(LimitScope::Organization, "", 20) };
        let all =
            [limit(LimitScope::Organization, "", 30), low, SpendLimit { currency: "EUR".into(), ..limit(LimitScope::Organization, "", 1) }];
        let key = Actor::ApiKey { api_key_id: ApiKeyId::from_uuid(uuid::Uuid::nil()) };
        for (at, least) in [("2030-01-31T23:59:59Z", 9), ("2030-02-01T00:00:00Z", 0)] {
            let left = limits(key, &all, at);
            let [(.., limit)] = left.as_slice() else { panic!("{left:?}") };
            assert_eq!((limit.most, limit.amount, limit.least), (20, 17, least), "{at}");
        }
    }
}
