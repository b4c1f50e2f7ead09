//! From a catalogue to the one text that stands for it: sorted, complete, read back as itself. What is stored and compared is this.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::amount;
use super::domain::{Amounts, Catalog, Coupon, CreditPack, Discount, Duration, Expiry, Models, Plan, Prices};

/// A catalogue as text: JSON, which YAML contains.
#[must_use]
pub fn print(catalog: &Catalog) -> String {
    serde_json::to_string_pretty(&tree(catalog)).unwrap_or_default() + "\n"
}

/// What a stored catalogue is recognized by: SHA-256 of its text, in hex.
#[must_use]
pub fn digest(catalog: &Catalog) -> String {
    crate::audit::hex(&Sha256::digest(print(catalog).as_bytes()))
}

fn tree(catalog: &Catalog) -> Value {
    let mut tree = Map::new();
    tree.insert("format".into(), json!(1));
    if let Some(code) = &catalog.default_plan {
        tree.insert("default_plan".into(), json!(code));
    }
    tree.insert("plans".into(), catalog.plans.iter().map(|(code, item)| (code.to_string(), plan(item))).collect());
    tree.insert("credit_packs".into(), catalog.credit_packs.iter().map(|(code, item)| (code.to_string(), credit_pack(item))).collect());
    tree.insert("coupons".into(), catalog.coupons.iter().map(|(code, item)| (code.to_string(), coupon(item))).collect());
    Value::Object(tree)
}

/// A plan as the file has it.
#[must_use]
pub fn plan(plan: &Plan) -> Value {
    let mut tree = json!({
        "name": plan.name,
        "group": plan.group,
        "trial_days": plan.trial_days,
        "grace_days": plan.grace_days,
        "prices": prices(&plan.prices),
    });
    if let Some(credit) = &plan.included_credit {
        tree["included_credit"] = json!({"amounts": amounts(&credit.amounts)});
        expiry(&mut tree["included_credit"], credit.expires);
    }
    tree["seats"] = json!({"included": plan.seats.included});
    if let Some(max) = plan.seats.max {
        tree["seats"]["max"] = json!(max);
    }
    if !plan.seats.prices.0.is_empty() {
        tree["seats"]["prices"] = prices(&plan.seats.prices);
    }
    tree["features"] = json!(plan.features);
    tree["limits"] = json!({});
    if let Some(requests) = plan.limits.requests_per_minute {
        tree["limits"]["requests_per_minute"] = json!(requests);
    }
    if let Some(tokens) = plan.limits.tokens_per_minute {
        tree["limits"]["tokens_per_minute"] = json!(tokens);
    }
    if let Models::Only(models) = &plan.limits.models {
        tree["limits"]["models"] = json!(models);
    }
    if !plan.limits.monthly_caps.is_empty() {
        tree["limits"]["monthly_caps"] = amounts(&plan.limits.monthly_caps);
    }
    tree
}

/// A credit pack as the file has it.
#[must_use]
pub fn credit_pack(pack: &CreditPack) -> Value {
    let mut tree = json!({"name": pack.name, "prices": amounts(&pack.prices), "credit": amounts(&pack.credit)});
    expiry(&mut tree, pack.expires);
    tree
}

/// A coupon as the file has it.
#[must_use]
pub fn coupon(coupon: &Coupon) -> Value {
    let mut tree = json!({"name": coupon.name});
    match &coupon.discount {
        Discount::Percent(percent) => tree["percent_off"] = json!(percent),
        Discount::Amount(off) => tree["amount_off"] = amounts(off),
    }
    tree["duration"] = json!(match coupon.duration {
        Duration::Once => "once",
        Duration::Months(_) => "months",
        Duration::Forever => "forever",
    });
    if let Duration::Months(months) = coupon.duration {
        tree["months"] = json!(months);
    }
    if !coupon.plans.is_empty() {
        tree["plans"] = json!(coupon.plans);
    }
    tree
}

fn prices(prices: &Prices) -> Value {
    let mut tree = json!({});
    for ((currency, interval), micros) in &prices.0 {
        tree[currency.code()][interval.as_str()] = json!(amount::print(*micros, *currency));
    }
    tree
}

fn amounts(amounts: &Amounts) -> Value {
    amounts.iter().map(|(currency, micros)| (currency.code().to_owned(), json!(amount::print(*micros, *currency)))).collect()
}

fn expiry(tree: &mut Value, expires: Expiry) {
    tree["expires"] = json!(match expires {
        Expiry::PeriodEnd => "period_end",
        Expiry::Days(_) => "days",
        Expiry::Never => "never",
    });
    if let Expiry::Days(days) = expires {
        tree["days"] = json!(days);
    }
}
