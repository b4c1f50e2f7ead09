//! Whatever a catalogue says, it survives being printed, and differs from nothing but another.

use std::collections::{BTreeMap, BTreeSet};

use money::Currency;
use proptest::prelude::*;

use super::amount::minor_micros;
use super::diff::{Action, Diff};
use super::domain::{
    Amounts, Catalog, Code, Coupon, CreditPack, Discount, Duration, Expiry, IncludedCredit, Interval, Limits, Models, Plan, Prices, Seats,
};
use super::parse::parse;
use super::print::{digest, print};
use crate::ledger::CREDIT;

fn code() -> impl Strategy<Value = Code> {
    "[a-z][a-z0-9_-]{0,10}".prop_map(|text| text.parse().unwrap())
}

/// Names as people write them, quotes, colons and line ends included.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,40}", "\\PC{1,20}", Just("no".to_owned()), Just("1e3".to_owned()), Just("- x: \"y\"".to_owned())]
}

fn currencies() -> impl Strategy<Value = BTreeSet<Currency>> {
    proptest::sample::subsequence(vec!["EUR", "JPY", "KWD", "USD"], 1..4)
        .prop_map(|codes| codes.iter().map(|code| code.parse().unwrap()).collect())
}

fn amounts(currencies: BTreeSet<Currency>) -> impl Strategy<Value = Amounts> {
    let each: Vec<_> = currencies
        .into_iter()
        .map(|currency| (1_i64..1_000_000).prop_map(move |minor| (currency, minor * minor_micros(currency))))
        .collect();
    each.prop_map(|amounts| amounts.into_iter().collect())
}

fn prices(currencies: BTreeSet<Currency>, yearly: bool) -> impl Strategy<Value = Prices> {
    let intervals = if yearly { vec![Interval::Month, Interval::Year] } else { vec![Interval::Month] };
    let keys: Vec<_> =
        currencies.into_iter().flat_map(|currency| intervals.clone().into_iter().map(move |interval| (currency, interval))).collect();
    let each: Vec<_> = keys.into_iter().map(|key| (0_i64..1_000_000).prop_map(move |minor| (key, minor * minor_micros(key.0)))).collect();
    each.prop_map(|prices| Prices(prices.into_iter().collect()))
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![Just(Expiry::PeriodEnd), Just(Expiry::Never), (1_u32..1000).prop_map(Expiry::Days)]
}

fn plan() -> impl Strategy<Value = Plan> {
    (currencies(), any::<bool>(), any::<bool>()).prop_flat_map(|(currencies, yearly, more)| {
        let seats = (1_u32..5, prices(currencies.clone(), yearly)).prop_map(move |(included, prices)| {
            if more { Seats { included, max: None, prices } } else { Seats { included, max: Some(included), prices: Prices::default() } }
        });
        let credit =
            proptest::option::of((amounts([CREDIT].into()), expiry()).prop_map(|(amounts, expires)| IncludedCredit { amounts, expires }));
        let models = prop_oneof![Just(Models::All), proptest::collection::btree_set("[a-z.-]{1,12}", 0..3).prop_map(Models::Only)];
        let caps = prop_oneof![Just(BTreeMap::new()), amounts([CREDIT].into())];
        let limits = (proptest::option::of(1_u32..10_000), proptest::option::of(1_u32..10_000), models, caps).prop_map(
            |(requests_per_minute, tokens_per_minute, models, monthly_caps)| Limits {
                requests_per_minute,
                tokens_per_minute,
                models,
                monthly_caps,
            },
        );
        let features = proptest::collection::btree_set(code(), 0..4);
        (name(), code(), 0_u32..365, 0_u32..28, prices(currencies, yearly), credit, seats, features, limits).prop_map(
            |(name, group, trial_days, grace_days, prices, included_credit, seats, features, limits)| Plan {
                name,
                group,
                trial_days,
                grace_days,
                prices,
                included_credit,
                seats,
                features,
                limits,
            },
        )
    })
}

fn pack() -> impl Strategy<Value = CreditPack> {
    let expires = prop_oneof![Just(Expiry::Never), (1_u32..1000).prop_map(Expiry::Days)];
    (currencies(), name(), expires).prop_flat_map(|(currencies, name, expires)| {
        (amounts(currencies), amounts([CREDIT].into())).prop_map(move |(prices, credit)| CreditPack {
            name: name.clone(),
            prices,
            credit,
            expires,
        })
    })
}

fn coupon() -> impl Strategy<Value = Coupon> {
    let discount = prop_oneof![(1_u32..=100).prop_map(Discount::Percent), currencies().prop_flat_map(amounts).prop_map(Discount::Amount)];
    let duration = prop_oneof![Just(Duration::Once), Just(Duration::Forever), (1_u32..=120).prop_map(Duration::Months)];
    (name(), discount, duration).prop_map(|(name, discount, duration)| Coupon { name, discount, duration, plans: BTreeSet::new() })
}

/// Any catalogue that is valid.
pub fn catalog() -> impl Strategy<Value = Catalog> {
    let plans = proptest::collection::btree_map(code(), plan(), 0..4);
    let packs = proptest::collection::btree_map(code(), pack(), 0..3);
    let coupons = proptest::collection::btree_map(code(), coupon(), 0..3);
    (plans, packs, coupons).prop_map(|(plans, credit_packs, coupons)| Catalog { default_plan: None, plans, credit_packs, coupons })
}

proptest! {
    #[test]
    fn a_catalogue_that_is_printed_is_read_as_itself(catalog in catalog()) {
        let text = print(&catalog);
        let read = parse(&text);
        prop_assert_eq!(read.as_ref(), Ok(&catalog), "{}", text);
        prop_assert_eq!(digest(&read.unwrap()), digest(&catalog));
    }

    #[test]
    fn the_difference_of_equal_catalogues_is_empty_and_of_others_is_not(a in catalog(), b in catalog()) {
        prop_assert!(Diff::between(&a, &a.clone()).is_empty());
        let diff = Diff::between(&a, &b);
        prop_assert_eq!(diff.is_empty(), a == b);
        prop_assert_eq!(digest(&a) == digest(&b), a == b);
        for change in &diff.changes {
            if let Action::Change(fields) = &change.action {
                prop_assert!(!fields.is_empty(), "a change says what changes: {change:?}");
            }
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}", yaml in "[a-z:&*<\\[\\]{}\"' \n-]{0,200}") {
        let _ = (parse(&text), parse(&yaml));
    }
}
