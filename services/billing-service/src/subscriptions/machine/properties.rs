//! Whatever is asked of a subscription, in whatever order, some things stay true.

use std::collections::{BTreeSet, HashSet};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::fixtures::{Case, charges, day, grants, terms};
use super::start;
use crate::catalog::Interval;
use crate::catalog::amount::minor_micros;
use crate::subscriptions::command::{AppliedCoupon, Command, Lasts, Off};
use crate::subscriptions::state::{Effect, OpenCharge, Subscription};
use crate::subscriptions::status::{Access, Status};
use crate::subscriptions::terms::Terms;

fn any_terms(currency: &'static str) -> impl Strategy<Value = Terms> {
    (0_usize..5, any::<bool>()).prop_map(move |(index, yearly)| {
        let interval = if yearly { Interval::Year } else { Interval::Month };
        let price = [0, 7, 20, 33, 100][index] * if yearly { 10 } else { 1 };
        terms(["free", "lite", "pro", "plus", "team"][index], currency, interval, price)
    })
}

#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    /// The outcome of the open charge of that index.
    Payment(prop::sample::Index, Outcome),
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Paid,
    Refused,
    Waived,
}

fn step(currency: &'static str) -> impl Strategy<Value = Step> {
    let off = prop_oneof![(1_u32..=100).prop_map(Off::Percent), (1_i64..50).prop_map(|units| Off::Micros(units * 1_000_000))];
    let coupon = off.prop_map(|off| AppliedCoupon { code: "some".parse().unwrap(), off, lasts: Lasts::Once, plans: BTreeSet::new() });
    let command = prop_oneof![
        2 => (any_terms(currency), 1_u32..8).prop_map(|(terms, seats)| Command::Upgrade { terms: Box::new(terms), seats }),
        2 => (any_terms(currency), 1_u32..8).prop_map(|(terms, seats)| Command::Downgrade { terms: Box::new(terms), seats }),
        2 => (1_u32..25).prop_map(|seats| Command::ChangeSeats { seats }),
        1 => Just(Command::CancelAtPeriodEnd),
        2 => Just(Command::Uncancel),
        1 => Just(Command::Pause),
        3 => Just(Command::Resume),
        1 => coupon.prop_map(|coupon| Command::ApplyCoupon { coupon }),
        1 => Just(Command::Expire),
        1 => Just(Command::GraceOver),
        8 => Just(Command::Renew),
    ];
    let outcome = prop_oneof![6 => Just(Outcome::Paid), 3 => Just(Outcome::Refused), 1 => Just(Outcome::Waived)];
    prop_oneof![
        20 => command.prop_map(Step::Command),
        10 => (any::<prop::sample::Index>(), outcome).prop_map(|(index, outcome)| Step::Payment(index, outcome)),
        1 => Just(Step::Command(Command::CancelNow)),
    ]
}

fn command(step: &Step, is: &Subscription) -> Option<Command> {
    match step {
        Step::Command(command) => Some(command.clone()),
        Step::Payment(_, _) if is.open.is_empty() => None,
        Step::Payment(index, outcome) => {
            let charge = index.get(&is.open);
            let (period_start, reason) = (charge.period_start, charge.reason.clone());
            Some(match outcome {
                Outcome::Paid => Command::PaymentSucceeded { period_start, reason },
                Outcome::Refused => Command::PaymentFailed { period_start, reason },
                Outcome::Waived => Command::ChargeWaived { period_start, reason },
            })
        }
    }
}

fn check_step(before: &Subscription, command: &Command, after: &Subscription, effects: &[Effect]) {
    if before.status.is_terminal() {
        assert_eq!(before.status, after.status, "[B-18]");
    }
    if *command == Command::Renew && before.status == Status::Active && !after.status.is_terminal() {
        assert_eq!(before.period.end, after.period.start, "[B-60]");
    }
    if before.status.access() == Access::None && after.status.access() != Access::None {
        let brings_access = matches!(command, Command::PaymentSucceeded { .. } | Command::ChargeWaived { .. } | Command::Resume);
        assert!(brings_access, "access came from {command:?}");
    }
    let rights = |of: &Subscription| (of.status, of.terms.clone(), of.seats);
    assert_eq!(rights(before) != rights(after), effects.contains(&Effect::EntitlementsChanged), "whoever caches rights is told");
    if !before.status.is_terminal() && after.status.is_terminal() {
        let left = |charge: &OpenCharge| charge.failed && charge.reason != "start" && !charge.given_up;
        assert!(!after.open.iter().any(left), "somebody would go on collecting: {:?}", after.open);
    }
    assert!(!after.open.iter().any(|charge| charge.given_up && charge.before.is_some()), "taken back already");
    assert!(after.status != Status::Active || !after.open.iter().any(OpenCharge::is_owed), "[B-71]");
    assert!(after.period.start < after.period.end);
    assert!(after.terms.allow_seats(after.seats).is_ok());
    assert!(after.value_micros >= 0);
    assert!(!(after.cancel_at_period_end && after.pending.is_some()));
    // Who paid late for what he had before has that, and the rest waits; so it does when a change is taken back.
    let is_back = before.status == Status::Unpaid || *command == Command::GraceOver;
    if before.period.start != after.period.start && !is_back {
        assert_eq!(after.pending, None, "[B-72] what was wanted for the next period is forgotten by it: {command:?}");
    }
    assert_eq!(after.grace_until.is_some(), after.status == Status::PastDue);
    assert_eq!(after.ended_at.is_some(), after.status.is_terminal());
}

fn check_all(effects: &[Effect], currency: &str) {
    let unit = minor_micros(currency.parse().unwrap());
    let mut seen = HashSet::new();
    for charge in charges(effects) {
        assert!(seen.insert((charge.period_start, charge.reason.clone())), "[B-77] charged twice: {charge:?}");
        assert_eq!(charge.lines.iter().map(|line| line.amount_micros).sum::<i64>(), charge.total_micros, "[B-76]");
        assert!(charge.total_micros > 0);
        assert!(charge.lines.iter().all(|line| line.amount_micros % unit == 0), "[B-27]");
    }
    let mut given = HashSet::new();
    for grant in grants(effects) {
        assert!(given.insert((grant.period_start, grant.reason.clone())), "[B-77] given twice: {grant:?}");
        assert!(grant.amount_micros > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// [B-18] [B-27] [B-60] [B-71] [B-72] [B-77] [B-76]
    #[test]
    fn any_sequence_of_commands_keeps_the_rules(
        currency in prop_oneof![Just("USD"), Just("JPY"), Just("KWD")], trial: bool,
        steps in proptest::collection::vec((step("USD"), 0_i64..40), 1..60)
    ) {
        // The currency is one for a customer: the terms of all commands are in it.
        let in_currency = |terms: &Terms| Terms { currency: currency.parse().unwrap(), ..terms.clone() };
        let first = in_currency(&terms("pro", "USD", Interval::Month, 20));
        let mut case = Case::from(start(first, 1, trial, None, day(0)).unwrap());
        if case.is.waits_for_card() {
            case.does(&Command::BeginTrial, day(0));
        }
        let mut now = day(0);
        for (step, days) in &steps {
            now += TimeDelta::days(*days);
            let Some(mut command) = command(step, &case.is) else { continue };
            if let Command::Upgrade { terms, .. } | Command::Downgrade { terms, .. } = &mut command {
                **terms = in_currency(terms);
            }
            let before = case.is.clone();
            if let Ok(effects) = case.attempt(&command, now) {
                check_step(&before, &command, &case.is, &effects);
            } else {
                prop_assert_eq!(&before, &case.is);
            }
        }
        check_all(&case.effects, currency);
    }

    /// [B-29] However often a plan is changed within a period, what was paid for it is between its cheapest and its dearest price.
    #[test]
    fn changes_within_a_period_neither_give_money_away_nor_take_it_twice(days in proptest::collection::vec(0_i64..28, 1..6)) {
        let mut days = days;
        days.sort_unstable();
        let mut case = Case::active(terms("p0", "USD", Interval::Month, 10));
        for (number, at) in (1_i64..).zip(&days) {
            case.does(&super::fixtures::to(terms("p", "USD", Interval::Month, 10 + number * 10)), day(*at));
        }
        let paid: i64 = case.totals().iter().sum();
        let dearest = 10_000_000 * (i64::try_from(days.len()).unwrap() + 1);
        prop_assert!((10_000_000..=dearest).contains(&paid));
    }
}
