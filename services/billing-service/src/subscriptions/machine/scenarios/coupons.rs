//! What coupons take off, and for how long [B-76].

use std::collections::BTreeSet;

use crate::catalog::Interval;
use crate::subscriptions::command::{AppliedCoupon, Command, Lasts, Off};
use crate::subscriptions::machine::fixtures::{Case, UNIT, day, down, pro, team, terms, to};
use crate::subscriptions::machine::start;
use crate::subscriptions::status::Status;

/// [B-76] What a coupon is for is not what it is taken along to.
#[test]
fn a_coupon_for_one_plan_takes_nothing_off_another_and_waits_for_its_own() {
    let whole = AppliedCoupon { plans: BTreeSet::from(["pro".parse().unwrap()]), ..coupon(Off::Percent(100), Lasts::Once) };
    let mut case = Case::from(start(pro(), 1, true, Some(whole), day(0)).unwrap());
    case.does(&Command::BeginTrial, day(0));
    case.does(&to(team()), day(1));
    case.does(&Command::Renew, day(14));
    case.paid(day(14));
    assert_eq!((case.is.terms.plan.as_str(), case.totals()), ("team", vec![100 * UNIT]));
    case.does(&down(pro()), day(15));
    case.does(&Command::Renew, case.is.period.end);
    assert_eq!((case.is.terms.plan.as_str(), case.totals()), ("pro", vec![100 * UNIT]), "and it is used then");
    assert_eq!(case.is.coupon, None);
}

fn coupon(off: Off, lasts: Lasts) -> AppliedCoupon {
    AppliedCoupon { code: "launch".parse().unwrap(), off, lasts, plans: BTreeSet::new() }
}

/// [B15] [B26]
#[test]
fn a_coupon_takes_off_as_long_as_it_lasts_and_never_more_than_there_is() {
    let once = coupon(Off::Micros(500 * UNIT), Lasts::Once);
    let mut case = Case::from(start(pro(), 1, false, Some(once), day(0)).unwrap());
    assert_eq!((case.is.status, case.totals(), case.granted()), (Status::Active, vec![], vec![10 * UNIT]), "nothing to pay is paid");
    case.does(&Command::Renew, day(28));
    let until = coupon(Off::Percent(25), Lasts::Until(day(60)));
    case.does(&Command::ApplyCoupon { coupon: until }, day(29));
    case.paid(day(29));
    case.does(&Command::Renew, day(59));
    case.does(&Command::Renew, day(89));
    assert_eq!(case.totals(), [20 * UNIT, 15 * UNIT, 20 * UNIT]);
}

/// What somebody did not pay does not count when they upgrade.
#[test]
fn a_discount_is_not_turned_into_money_by_an_upgrade() {
    let free = coupon(Off::Percent(100), Lasts::Once);
    let mut case = Case::from(start(pro(), 1, false, Some(free), day(0)).unwrap());
    case.does(&to(terms("pro", "USD", Interval::Year, 200)), day(14));
    assert_eq!(case.totals(), [200 * UNIT]);
}
