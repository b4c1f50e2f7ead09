//! Reads credit packs, coupons and what they share with plans.

use money::Currency;
use serde_json::Value;

use crate::catalog::amount as decimal;
use crate::catalog::domain::{Amounts, Coupon, CreditPack, Discount, Duration, Expiry};
use crate::catalog::reader::{Faults, Fields, entries, text};

const MAX_DAYS: u32 = 3650;

/// Reads a credit pack.
pub fn credit_pack(path: &str, value: Value, faults: &Faults) -> CreditPack {
    let mut fields = Fields::of(path, value, faults);
    let name = fields.text("name");
    let prices = fields.need("prices").map(|value| amounts(&fields.path("prices"), value, faults)).unwrap_or_default();
    let credit = fields.need("credit").map(|value| amounts(&fields.path("credit"), value, faults)).unwrap_or_default();
    let expires = expiry(&mut fields, faults);
    fields.end();
    CreditPack { name, prices, credit, expires }
}

/// Reads a coupon.
pub fn coupon(path: &str, value: Value, faults: &Faults) -> Coupon {
    let mut fields = Fields::of(path, value, faults);
    let name = fields.text("name");
    let percent = fields.number("percent_off", 1, 100);
    let off = fields.take("amount_off").map(|value| amounts(&fields.path("amount_off"), value, faults));
    let discount = match (percent, off) {
        (Some(percent), None) => Discount::Percent(percent),
        (None, Some(amounts)) => Discount::Amount(amounts),
        _ => {
            faults.add(path, "must have either percent_off or amount_off");
            Discount::Percent(1)
        }
    };
    let duration = duration(&mut fields, faults);
    let plans = fields.list("plans").unwrap_or_default();
    fields.end();
    Coupon { name, discount, duration, plans }
}

fn duration(fields: &mut Fields<'_>, faults: &Faults) -> Duration {
    let path = fields.path("duration");
    let months = fields.number("months", 1, 120);
    let Some(value) = fields.need("duration") else { return Duration::Once };
    match (text(&path, &value, faults).as_deref(), months) {
        (Some("once"), None) | (None, _) => Duration::Once,
        (Some("months"), Some(months)) => Duration::Months(months),
        (Some("forever"), None) => Duration::Forever,
        _ => {
            faults.add(&path, "must be once, forever, or months with a number of months");
            Duration::Once
        }
    }
}

/// `expires: period_end`, `expires: never`, or `expires: days` with `days: 90`.
pub fn expiry(fields: &mut Fields<'_>, faults: &Faults) -> Expiry {
    let path = fields.path("expires");
    let days = fields.number("days", 1, MAX_DAYS);
    let Some(value) = fields.need("expires") else { return Expiry::Never };
    match (text(&path, &value, faults).as_deref(), days) {
        (Some("period_end"), None) => Expiry::PeriodEnd,
        (Some("never"), None) | (None, _) => Expiry::Never,
        (Some("days"), Some(days)) => Expiry::Days(days),
        _ => {
            faults.add(&path, "must be never, period_end, or days with a number of days");
            Expiry::Never
        }
    }
}

/// `{USD: "20.00", JPY: "3000"}`
pub fn amounts(path: &str, value: Value, faults: &Faults) -> Amounts {
    let read = entries::<Currency>(path, value, faults);
    if read.is_empty() {
        faults.add(path, "must have an amount in a currency");
    }
    read.into_iter().filter_map(|(currency, path, value)| Some((currency, amount(&path, &value, currency, faults)?))).collect()
}

/// An amount in quotes.
pub fn amount(path: &str, value: &Value, currency: Currency, faults: &Faults) -> Option<i64> {
    let text = text(path, value, faults)?;
    decimal::parse(&text, currency).map_err(|error| faults.add(path, error.to_string())).ok()
}
