//! What is refused, and how it is said.

use super::parse::{Invalid, parse};

fn faults(text: &str) -> Vec<(String, String)> {
    let said = |invalid: Invalid| invalid.0.into_iter().map(|fault| (fault.path, fault.rule)).collect();
    parse(text).map_or_else(said, |_| Vec::new())
}

fn paths(text: &str) -> Vec<String> {
    faults(text).into_iter().map(|(path, _)| path).collect()
}

#[test]
fn all_faults_are_said_at_once_each_with_its_path_and_rule() {
    let text = "
format: 1
plans:
  pro:
    name: ''
    price: {}
    trial_days: 1000
    prices: {USD: {month: 20.00, week: '1.00'}, XXX: {month: '1'}, JPY: {month: '1.5'}}
    seats: {included: 3, max: 2}
  Bad Code: {name: x, prices: {USD: {month: '1.00'}}}
coupons:
  both: {name: x, percent_off: 10, amount_off: {USD: '1.00'}, duration: once}
extra: 1
";
    let mut said = paths(text);
    said.sort();
    assert_eq!(
        said,
        [
            "coupons.both",
            "extra",
            "plans.Bad Code",
            "plans.pro.name",
            "plans.pro.price",
            "plans.pro.prices",
            "plans.pro.prices.JPY.month",
            "plans.pro.prices.USD.month",
            "plans.pro.prices.USD.week",
            "plans.pro.prices.XXX",
            "plans.pro.seats.max",
            "plans.pro.trial_days",
        ]
    );
}

/// [B-26]
#[test]
fn an_amount_without_quotes_is_refused_for_it_would_pass_through_a_floating_point_number() {
    let text = "{format: 1, plans: {pro: {name: Pro, prices: {USD: {month: 20.00}}}}}";
    assert!(faults(text).contains(&("plans.pro.prices.USD.month".into(), "must be text, in quotes".into())));
}

#[test]
fn a_key_that_is_there_twice_a_merge_and_a_bomb_of_aliases_are_refused() {
    let twice = "{format: 1, plans: {}, plans: {}}";
    let merge = "base: &b {format: 1}\n<<: *b\n";
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let large = format!("format: 1 # {}", "x".repeat(super::parse::MAX_BYTES));
    for text in [twice, merge, bomb, &deep, &large, "format: 1\n---\nformat: 1\n"] {
        assert_eq!(paths(text), ["file"], "{}", &text[..text.len().min(60)]);
    }
}

#[test]
fn rules_that_several_fields_keep_together_are_checked() {
    let with = |rest: &str| format!("{{format: 1, {rest}}}");
    let plan = |rest: &str| with(&format!("plans: {{pro: {{name: Pro, prices: {{USD: {{month: '20.00'}}}}{rest}}}}}"));
    let cases = [
        (with("default_plan: pro"), "default_plan"),
        (plan(", included_credit: {amounts: {EUR: '1.00'}, expires: never}"), "plans.pro.included_credit.amounts"),
        (plan(", limits: {monthly_caps: {USD: '1.00', EUR: '1.00'}}"), "plans.pro.limits.monthly_caps"),
        (with("credit_packs: {p: {name: P, prices: {JPY: '1500'}, credit: {JPY: '1500'}, expires: never}}"), "credit_packs.p.credit"),
        (with("credit_packs: {p: {name: P, prices: {KWD: '3.075'}, credit: {USD: '10.00'}, expires: never}}"), "credit_packs.p.prices.KWD"),
        (with("plans: {p: {name: P, prices: {KWD: {month: '0.001'}}}}"), "plans.p.prices.KWD.month"),
        (with("coupons: {c: {name: C, amount_off: {KWD: '0.005'}, duration: once}}"), "coupons.c.amount_off.KWD"),
        (with(&format!("coupons: {{c: {{name: {}, percent_off: 10, duration: once}}}}", "n".repeat(41))), "coupons.c.name"),
        (plan(", seats: {included: 1, max: 5}"), "plans.pro.seats.prices"),
        (plan(", seats: {included: 1, max: 1, prices: {USD: {month: '1.00'}}}"), "plans.pro.seats.prices"),
        (with("credit_packs: {p: {name: P, prices: {USD: '0.00'}, credit: {USD: '1.00'}, expires: never}}"), "credit_packs.p.prices.USD"),
        (with("credit_packs: {p: {name: P, prices: {USD: '1.00'}, credit: {USD: '1.00'}, expires: period_end}}"), "credit_packs.p.expires"),
        (with("coupons: {c: {name: C, percent_off: 10, duration: once, plans: [none]}}"), "coupons.c.plans"),
        (with("plans: {p: {name: P, prices: {USD: {month: '1.00'}}}}, default_plan: p"), "default_plan"),
    ];
    for (text, path) in cases {
        assert_eq!(paths(&text), [path], "{text}");
    }
}
