//! Rules that more than one field must keep together.

use money::Currency;

use crate::catalog::amount::minor_micros;
use crate::catalog::domain::{Amounts, Catalog, CreditPack, Discount, Expiry, Plan};
use crate::catalog::reader::Faults;
use crate::ledger::CREDIT;

/// Characters that the name of a coupon has at Stripe, at most: <https://docs.stripe.com/api/coupons/create>. Not a rule of the field, since
/// coupons that were stored before may have more and are still read.
const COUPON_NAME: usize = 40;

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
        if coupon.name.chars().count() > COUPON_NAME {
            faults.add(&format!("coupons.{code}.name"), format!("must have 1 to {COUPON_NAME} characters, as Stripe has it"));
        }
        for plan in coupon.plans.iter().filter(|plan| !catalog.plans.contains_key(plan)) {
            faults.add(&format!("coupons.{code}.plans"), format!("must be plans, and {plan} is none"));
        }
        if let Discount::Amount(amounts) = &coupon.discount {
            positive(&format!("coupons.{code}.amount_off"), amounts, faults);
            for (currency, micros) in amounts {
                payable(|name| format!("coupons.{code}.amount_off.{name}"), *micros, *currency, faults);
            }
        }
    }
}

fn check_plan(path: &str, plan: &Plan, faults: &Faults) {
    if plan.prices.0.is_empty() {
        faults.add(&format!("{path}.prices"), "must have a price");
    }
    for (name, prices) in [("prices", &plan.prices), ("seats.prices", &plan.seats.prices)] {
        for ((currency, interval), micros) in &prices.0 {
            payable(|code| format!("{path}.{name}.{code}.{}", interval.as_str()), *micros, *currency, faults);
        }
    }
    if let Some(credit) = &plan.included_credit {
        of_credit(&format!("{path}.included_credit.amounts"), &credit.amounts, faults);
        positive(&format!("{path}.included_credit.amounts"), &credit.amounts, faults);
    }
    if !plan.limits.monthly_caps.is_empty() {
        of_credit(&format!("{path}.limits.monthly_caps"), &plan.limits.monthly_caps, faults);
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
    for (currency, micros) in &pack.prices {
        payable(|code| format!("{path}.prices.{code}"), *micros, *currency, faults);
    }
    of_credit(&format!("{path}.credit"), &pack.credit, faults);
    positive(&format!("{path}.prices"), &pack.prices, faults);
    positive(&format!("{path}.credit"), &pack.credit, faults);
    if pack.expires == Expiry::PeriodEnd {
        faults.add(&format!("{path}.expires"), "must be never or days: a pack has no period");
    }
}

/// A wallet is in one currency, and what models cost is counted in it: whatever is paid in, this is what it gives and limits.
fn of_credit(path: &str, amounts: &Amounts, faults: &Faults) {
    if !amounts.keys().eq([&CREDIT]) {
        faults.add(path, format!("must be in {CREDIT}, the currency of credit, and in no other"));
    }
}

/// Stripe takes amounts with three decimals only when the last of them is zero.
fn payable(path: impl Fn(&str) -> String, micros: i64, currency: Currency, faults: &Faults) {
    if micros % minor_micros(currency) != 0 {
        faults.add(&path(currency.code()), format!("must end in 0: the smallest payment in {currency} is ten of its smallest units"));
    }
}

fn positive(path: &str, amounts: &Amounts, faults: &Faults) {
    for (currency, _) in amounts.iter().filter(|(_, micros)| **micros <= 0) {
        faults.add(&format!("{path}.{currency}"), "must be more than zero");
    }
}
