//! Reads one plan.

use money::Currency;
use serde_json::Value;

use super::items::{amount, amounts, expiry};
use crate::catalog::domain::{IncludedCredit, Interval, Limits, Models, Plan, Prices, Seats};
use crate::catalog::reader::{Faults, Fields, entries};

const MAX_TRIAL_DAYS: u32 = 365;
/// Shorter than the shortest period: a period that was not paid is over before the next one is.
const MAX_GRACE_DAYS: u32 = 27;

/// Reads a plan.
pub fn plan(path: &str, value: Value, faults: &Faults) -> Plan {
    let mut fields = Fields::of(path, value, faults);
    let name = fields.text("name");
    let group = fields.parsed("group").unwrap_or_else(|| "default".parse().unwrap_or_else(|_| unreachable!("a fixed code")));
    let plan = Plan {
        name,
        group,
        trial_days: fields.number("trial_days", 0, MAX_TRIAL_DAYS).unwrap_or(0),
        grace_days: fields.number("grace_days", 0, MAX_GRACE_DAYS).unwrap_or(7),
        prices: fields.need("prices").map(|value| prices(&fields.path("prices"), value, faults)).unwrap_or_default(),
        included_credit: fields.take("included_credit").map(|value| included_credit(&fields.path("included_credit"), value, faults)),
        seats: seats(&fields.path("seats"), fields.take("seats"), faults),
        features: fields.list("features").unwrap_or_default(),
        limits: limits(&fields.path("limits"), fields.take("limits"), faults),
    };
    fields.end();
    plan
}

/// `{USD: {month: "20.00", year: "200.00"}}`
fn prices(path: &str, value: Value, faults: &Faults) -> Prices {
    let mut prices = Prices::default();
    for (currency, path, value) in entries::<Currency>(path, value, faults) {
        let mut fields = Fields::of(&path, value, faults);
        let mut any = false;
        for interval in Interval::ALL {
            if let Some(value) = fields.take(interval.as_str()) {
                any = true;
                if let Some(micros) = amount(&fields.path(interval.as_str()), &value, currency, faults) {
                    prices.0.insert((currency, interval), micros);
                }
            }
        }
        if !any {
            faults.add(&path, "must have a price for a month or for a year");
        }
        fields.end();
    }
    prices
}

fn included_credit(path: &str, value: Value, faults: &Faults) -> IncludedCredit {
    let mut fields = Fields::of(path, value, faults);
    let amounts = fields.need("amounts").map(|value| amounts(&fields.path("amounts"), value, faults)).unwrap_or_default();
    let expires = expiry(&mut fields, faults);
    fields.end();
    IncludedCredit { amounts, expires }
}

fn seats(path: &str, value: Option<Value>, faults: &Faults) -> Seats {
    let Some(value) = value else { return Seats { included: 1, max: Some(1), prices: Prices::default() } };
    let mut fields = Fields::of(path, value, faults);
    let seats = Seats {
        included: fields.number("included", 1, 1_000_000).unwrap_or(1),
        max: fields.number("max", 1, 1_000_000),
        prices: fields.take("prices").map(|value| prices(&fields.path("prices"), value, faults)).unwrap_or_default(),
    };
    fields.end();
    seats
}

fn limits(path: &str, value: Option<Value>, faults: &Faults) -> Limits {
    let none =
        Limits { requests_per_minute: None, tokens_per_minute: None, models: Models::All, monthly_caps: std::collections::BTreeMap::new() };
    let Some(value) = value else { return none };
    let mut fields = Fields::of(path, value, faults);
    let limits = Limits {
        requests_per_minute: fields.number("requests_per_minute", 1, 10_000_000),
        tokens_per_minute: fields.number("tokens_per_minute", 1, u32::MAX),
        models: fields.list::<String>("models").map_or(Models::All, Models::Only),
        monthly_caps: fields.take("monthly_caps").map(|value| amounts(&fields.path("monthly_caps"), value, faults)).unwrap_or_default(),
    };
    fields.end();
    limits
}
