//! What credit a subscription brings and until when, and what of its charges counts when money went back [B-46] [B-77].

use crate::catalog::Interval;
use crate::subscriptions::command::Command;
use crate::subscriptions::machine::fixtures::{Case, UNIT, day, grants, pro, team, terms, to};
use crate::subscriptions::machine::start;
use crate::subscriptions::terms::{CreditEnd, CreditTerms, Terms};

/// [B-77] Nothing is paid for the change, so it must not bring the difference each time.
#[test]
fn to_and_fro_between_plans_of_one_price_gives_the_difference_of_the_credit_once() {
    let credit = |micros| Some(CreditTerms { micros, ends: CreditEnd::PeriodEnd });
    let (less, more) =
        (Terms { credit: credit(10 * UNIT), ..pro() }, Terms { plan: "plus".parse().unwrap(), credit: credit(30 * UNIT), ..pro() });
    let mut case = Case::active(less.clone());
    for terms in [&more, &less, &more, &less, &more] {
        case.does(&to(terms.clone()), day(14));
    }
    assert_eq!((case.totals(), case.granted()), (vec![20 * UNIT], vec![10 * UNIT, 10 * UNIT]), "half of the difference, once");
    case.does(&to(less), day(14));
    case.does(&to(Terms { credit: credit(120 * UNIT), ..terms("pro", "USD", Interval::Year, 200) }), day(14));
    case.paid(day(14));
    assert_eq!(case.granted()[2], 105 * UNIT, "what is left of the larger credit counts, whatever plan it is now");
}

/// What was stored before the credit of the period was kept is measured by its plan.
#[test]
fn a_subscription_that_was_stored_without_the_credit_of_its_period_gives_only_what_is_beyond_its_plan() {
    let mut case = Case::active(pro());
    let mut stored = serde_json::to_value(&case.is).unwrap();
    stored.as_object_mut().unwrap().remove("credited_micros").unwrap();
    case.is = serde_json::from_value(stored).unwrap();
    case.does(&to(team()), day(14));
    case.paid(day(14));
    assert_eq!(case.granted(), [10 * UNIT, 20 * UNIT]);
}

/// [B-46] [B-72] Who changes within a year, or pays late, has what he pays for as long as anybody.
#[test]
fn credit_that_ends_after_days_ends_so_many_days_after_it_is_given_and_not_after_its_period_began() {
    let in_days = |plan, units, days| {
        let terms = terms(plan, "USD", Interval::Year, units);
        Terms { credit: Some(CreditTerms { micros: units * UNIT, ends: CreditEnd::Days(days) }), ..terms }
    };
    let mut case = Case::active(in_days("pro", 200, 90));
    case.does(&to(in_days("team", 1000, 90)), day(150));
    case.paid(day(152));
    let ends = |case: &Case| grants(&case.effects).iter().map(|grant| grant.expires_at).collect::<Vec<_>>();
    assert_eq!(ends(&case), [Some(day(90)), Some(day(242))]);
    case.does(&Command::Renew, day(365));
    case.fails(day(365));
    case.paid(day(370));
    assert_eq!(ends(&case)[2], Some(day(460)));
    let free = |plan| Terms { base_micros: 0, seat_micros: 0, ..in_days(plan, 100, 30) };
    let mut gift = Case::from(start(free("free"), 1, false, None, day(0)).unwrap());
    let more = Terms { credit: Some(CreditTerms { micros: 200 * UNIT, ends: CreditEnd::Days(30) }), ..free("freer") };
    gift.does(&to(more), day(200));
    assert_eq!(ends(&gift), [Some(day(30)), Some(day(230))]);
}

/// [B-48] [B-72] It would be given back a second time.
#[test]
fn money_that_went_back_is_not_taken_off_what_a_longer_plan_costs() {
    let year = |case: &mut Case| {
        case.does(&to(terms("pro", "USD", Interval::Year, 200)), day(14));
        *case.totals().last().unwrap()
    };
    let reversed_since = |since, micros| Command::ChargeReversed { period_start: day(0), since: day(since), micros };
    let reversed = |micros| reversed_since(0, micros);
    let with = |parts: &[i64]| {
        let mut case = Case::active(pro());
        for micros in parts {
            case.does(&reversed(*micros), day(1));
        }
        year(&mut case)
    };
    let half = 10 * UNIT;
    assert_eq!(with(&[]), 190 * UNIT);
    assert_eq!((with(&[20 * UNIT]), with(&[half]), with(&[half, half, half])), (200 * UNIT, 195 * UNIT, 200 * UNIT));
    assert_eq!(with(&[half, -half]), 190 * UNIT, "a dispute that was won");
    let mut case = Case::active(pro());
    case.does(&Command::Renew, day(28));
    case.paid(day(28));
    case.does(&reversed(20 * UNIT), day(29));
    assert_eq!(case.is.value_micros, 20 * UNIT, "of another period");
    // Half a month of the dearer plan was paid for, and what that is worth for the whole is twice as much.
    let mut case = Case::active(pro());
    case.does(&to(team()), day(14));
    case.paid(day(14));
    case.does(&reversed_since(14, 40 * UNIT), day(14));
    assert_eq!(case.is.value_micros, 20 * UNIT, "as before the change");
    // What is agreed before a change that nobody pays for is worth less, too.
    let mut case = Case::active(pro());
    case.does(&to(team()), day(14));
    case.does(&reversed(20 * UNIT), day(15));
    case.fails(day(15));
    case.does(&Command::GraceOver, day(22));
    assert_eq!((case.is.terms.plan.as_str(), case.is.value_micros), ("pro", 0));
    // Who paid late has a period from then on, by the charge of the one that is over.
    let mut case = Case::active(pro());
    case.does(&Command::Renew, day(28));
    case.fails(day(28));
    case.does(&Command::GraceOver, day(35));
    case.paid(day(100));
    case.does(&Command::ChargeReversed { period_start: day(28), since: day(28), micros: 20 * UNIT }, day(101));
    assert_eq!((case.is.period.start, case.is.value_micros), (day(100), 0));
}
