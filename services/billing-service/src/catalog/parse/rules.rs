//! Rules that more than one field must keep together.

use std::collections::BTreeSet;

use money::Currency;

use crate::catalog::domain::{Amounts, Catalog, CreditPack, Discount, Expiry, Plan};
use crate::catalog::reader::Faults;

/// Checks what no single field says.
pub fn check(catalog: &Catalog, faults: &Faults) {
    if let Some(code) = catalog.default_plan.as_ref() {
        match catalog.plans.get(code) {
            None => faults.add("default_plan", "must be one of the plans"),
            Some(plan) if plan.prices.0.values().any(|micros| *micros != 0) => faults.add("default_plan", "must be free: nobody chose it"),
            Some(_) => {}
        }
    }
    for (code, plan) in &catalog.plans {
        check_plan(&format!("plans.{code}"), plan, faults);
    }
    for (code, pack) in &catalog.credit_packs {
        check_pack(&format!("credit_packs.{code}"), pack, faults);
    }
    for (code, coupon) in &catalog.coupons {
        for plan in coupon.plans.iter().filter(|plan| !catalog.plans.contains_key(plan)) {
            faults.add(&format!("coupons.{code}.plans"), format!("must be plans, and {plan} is none"));
        }
        if let Discount::Amount(amounts) = &coupon.discount {
            positive(&format!("coupons.{code}.amount_off"), amounts, faults);
        }
    }
}

fn check_plan(path: &str, plan: &Plan, faults: &Faults) {
    let currencies = plan.prices.currencies();
    if currencies.is_empty() {
        faults.add(&format!("{path}.prices"), "must have a price");
    }
    if let Some(credit) = &plan.included_credit {
        same_currencies(&format!("{path}.included_credit.amounts"), &credit.amounts, &currencies, faults);
        positive(&format!("{path}.included_credit.amounts"), &credit.amounts, faults);
    }
    if !plan.limits.monthly_caps.is_empty() {
        same_currencies(&format!("{path}.limits.monthly_caps"), &plan.limits.monthly_caps, &currencies, faults);
    }
    if plan.seats.max.is_some_and(|max| max < plan.seats.included) {
        faults.add(&format!("{path}.seats.max"), "must be at least those included");
    }
    let more = plan.seats.max.is_none_or(|max| max > plan.seats.included);
    let same = plan.seats.prices.0.keys().eq(plan.prices.0.keys());
    if more && !same {
        faults.add(
            &format!("{path}.seats.prices"),
            "must have a price wherever the plan has one, since more seats than those included may be had",
        );
    }
    if !more && !plan.seats.prices.0.is_empty() {
        faults.add(&format!("{path}.seats.prices"), "must be absent, since no more seats than those included may be had");
    }
}

fn check_pack(path: &str, pack: &CreditPack, faults: &Faults) {
    same_currencies(&format!("{path}.credit"), &pack.credit, &pack.prices.keys().copied().collect(), faults);
    positive(&format!("{path}.prices"), &pack.prices, faults);
    positive(&format!("{path}.credit"), &pack.credit, faults);
    if pack.expires == Expiry::PeriodEnd {
        faults.add(&format!("{path}.expires"), "must be never or days: a pack has no period");
    }
}

fn same_currencies(path: &str, amounts: &Amounts, currencies: &BTreeSet<Currency>, faults: &Faults) {
    if !amounts.keys().eq(currencies.iter()) {
        let list: Vec<&str> = currencies.iter().map(|currency| currency.code()).collect();
        faults.add(path, format!("must have the currencies of the prices ({})", list.join(", ")));
    }
}

fn positive(path: &str, amounts: &Amounts, faults: &Faults) {
    for (currency, _) in amounts.iter().filter(|(_, micros)| **micros <= 0) {
        faults.add(&format!("{path}.{currency}"), "must be more than zero");
    }
}
