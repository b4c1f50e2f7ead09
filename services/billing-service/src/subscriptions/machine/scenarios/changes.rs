//! Changes within a period that nobody pays for, and charges that are waived [B-71] [B-72].

use chrono::TimeDelta;

use crate::catalog::Interval;
use crate::subscriptions::command::{AppliedCoupon, Command, Lasts, Off, Refusal};
use crate::subscriptions::machine::fixtures::{Case, UNIT, day, down, pro, team, terms, to};
use crate::subscriptions::state::Effect;
use crate::subscriptions::status::Status;

const SEATS: Command = Command::ChangeSeats { seats: 4 };

fn refused(case: &mut Case, index: usize, day_number: i64) {
    let charge = case.is.open[index].clone();
    case.does(&Command::PaymentFailed { period_start: charge.period_start, reason: charge.reason }, day(day_number));
}

fn paid(case: &mut Case, index: usize, day_number: i64) -> Vec<Effect> {
    let charge = case.is.open[index].clone();
    case.does(&Command::PaymentSucceeded { period_start: charge.period_start, reason: charge.reason }, day(day_number))
}

fn stands_at(case: &Case) -> (Status, &str, u32) {
    (case.is.status, case.is.terms.plan.as_str(), case.is.seats)
}

/// [B-71] [B-72] Who paid for a month has it, whatever became of what he wanted in it.
#[test]
fn a_change_that_nobody_pays_for_is_taken_back_and_the_paid_period_goes_on() {
    let mut case = Case::active(pro());
    let paid_for = case.is.clone();
    case.does(&to(team()), day(10));
    case.fails(day(10));
    assert_eq!((stands_at(&case), case.is.next_action_at()), ((Status::PastDue, "team", 1), Some(day(17))), "it may be mended");
    let effects = case.does(&Command::GraceOver, day(17));
    let (period_start, reason) = (day(0), case.is.open[0].reason.clone());
    assert_eq!(effects, [Effect::GiveUp { period_start, reason: reason.clone() }, Effect::EntitlementsChanged]);
    assert_eq!((stands_at(&case), case.is.next_action_at()), ((Status::Active, "pro", 1), Some(day(28))));
    assert_eq!((case.is.value_micros, case.is.credited_micros), (paid_for.value_micros, paid_for.credited_micros));
    let late = case.does(&Command::PaymentSucceeded { period_start, reason: reason.clone() }, day(18));
    assert_eq!(late, [Effect::Refund { period_start, reason }], "money that comes all the same goes back");
    case.does(&Command::Renew, day(28));
    assert_eq!((case.totals().last(), case.granted()), (Some(&(20 * UNIT)), vec![10 * UNIT]));
    case.paid(day(28));
    assert_eq!((case.is.status, case.granted()), (Status::Active, vec![10 * UNIT; 2]));
}

/// [B-71] What was refused once may be wanted again, and costs what it costs then.
#[test]
fn what_was_taken_back_can_be_bought_again() {
    let mut case = Case::active(pro());
    case.does(&to(team()), day(0));
    case.fails(day(0));
    case.does(&Command::GraceOver, day(7));
    case.does(&to(team()), day(14));
    assert_eq!(case.totals(), [20 * UNIT, 80 * UNIT, 40 * UNIT]);
    paid(&mut case, 1, 14);
    assert_eq!((stands_at(&case), case.granted()), ((Status::Active, "team", 1), vec![10 * UNIT, 20 * UNIT]));
}

/// [B-71] Nobody has for nothing, one grace after the other, what others pay for.
#[test]
fn who_did_not_pay_for_a_change_has_an_hour_for_the_next_one_and_no_fourth_one_in_a_month() {
    let mut case = Case::active(pro());
    let mut now = day(1);
    for grace in [TimeDelta::days(7), TimeDelta::hours(1), TimeDelta::hours(1)] {
        case.does(&to(team()), now);
        let charge = case.is.open.last().unwrap().clone();
        case.does(&Command::PaymentFailed { period_start: charge.period_start, reason: charge.reason }, now);
        now += grace;
        assert_eq!(case.is.next_action_at(), Some(now));
        case.does(&Command::GraceOver, now);
        assert_eq!(stands_at(&case), (Status::Active, "pro", 1));
    }
    let before = case.is.clone();
    assert_eq!((case.attempt(&to(team()), now), case.attempt(&SEATS, now)), (Err(Refusal::ChangesUnpaid), Err(Refusal::ChangesUnpaid)));
    assert_eq!(case.is, before);
    for (index, at) in [(0, 18), (0, 18)] {
        assert!(matches!(paid(&mut case, index, at)[..], [Effect::Refund { .. }]), "what comes too late makes nothing good");
    }
    assert_eq!(case.attempt(&to(team()), day(19)), Err(Refusal::ChangesUnpaid));
    case.does(&Command::Renew, day(28));
    case.fails(day(28));
    assert_eq!(case.is.next_action_at(), Some(day(35)), "of the period itself the grace is what it was");
    paid(&mut case, 1, 29);
    case.does(&to(team()), day(40));
    paid(&mut case, 1, 40);
    assert_eq!(stands_at(&case), (Status::Active, "team", 1));
}

/// [B-71] The hour of a change is not the time for the period itself.
#[test]
fn a_renewal_that_fails_beside_a_change_has_the_grace_of_its_own() {
    let mut case = Case::active(pro());
    case.does(&SEATS, day(1));
    case.fails(day(1));
    case.does(&Command::GraceOver, day(8));
    case.does(&Command::Renew, day(28));
    case.does(&SEATS, day(28));
    case.fails(day(28));
    assert_eq!(case.is.next_action_at(), Some(day(28) + TimeDelta::hours(1)));
    refused(&mut case, 1, 28);
    assert_eq!(case.is.next_action_at(), Some(day(35)));
    refused(&mut case, 1, 30);
    assert_eq!(case.is.next_action_at(), Some(day(35)), "told again");
}

/// [B-60] Nobody pays for months that went by while what came after them was not paid.
#[test]
fn what_holds_again_long_after_its_period_goes_on_with_one_that_begins_now() {
    let mut case = Case::active(pro());
    case.does(&to(terms("pro", "USD", Interval::Year, 200)), day(20));
    case.does(&Command::Pause, day(21));
    refused(&mut case, 0, 25);
    case.does(&Command::Resume, day(90));
    case.does(&Command::GraceOver, day(97));
    assert_eq!((stands_at(&case), case.is.period.start), ((Status::Active, "pro", 1), day(97)));
    assert_eq!((case.is.terms.interval, case.totals().last(), case.totals().len()), (Interval::Month, Some(&(20 * UNIT)), 3));
}

/// [B-60] [B-72] The month that was paid is used up, and months follow it.
#[test]
fn a_year_that_nobody_pays_for_gives_the_month_back_that_was_paid() {
    let coupon = AppliedCoupon {
        code: "launch".parse().unwrap(),
        off: Off::Percent(50),
        lasts: Lasts::Once,
        plans: std::collections::BTreeSet::new(),
    };
    let mut case = Case::active(pro());
    case.does(&Command::ApplyCoupon { coupon: coupon.clone() }, day(1));
    case.does(&to(terms("pro", "USD", Interval::Year, 200)), day(25));
    assert_eq!((case.is.period.start, &case.is.coupon), (day(25), &None));
    case.fails(day(25));
    case.does(&Command::GraceOver, day(32));
    assert_eq!((case.is.terms.interval, case.is.period.start, case.is.period.end), (Interval::Month, day(0), day(28)));
    assert_eq!(case.is.coupon, Some(coupon), "nothing was taken off");
    case.does(&Command::Renew, day(32));
    assert_eq!((case.is.period.start, case.totals().last()), (day(28), Some(&(10 * UNIT))));
}

/// [B-72]
#[test]
fn an_end_that_was_wanted_comes_when_the_paid_period_ends_and_not_when_a_change_was_not_paid() {
    let mut case = Case::active(terms("pro", "USD", Interval::Year, 200));
    case.does(&Command::CancelAtPeriodEnd, day(20));
    case.does(&SEATS, day(21));
    case.fails(day(21));
    case.does(&Command::GraceOver, day(28));
    assert_eq!((stands_at(&case), case.is.next_action_at()), ((Status::Active, "pro", 1), Some(case.is.period.end)));
    case.does(&Command::Renew, case.is.period.end);
    assert_eq!(case.is.status, Status::Canceled);
}

/// [B-72] What was built on it goes with it, unless that was paid: then all of it stands, and is owed.
#[test]
fn what_was_built_on_a_change_is_taken_back_with_it_or_keeps_it() {
    let both = || {
        let mut case = Case::active(pro());
        case.does(&to(team()), day(10));
        case.does(&SEATS, day(11));
        case
    };
    let mut neither = both();
    refused(&mut neither, 0, 12);
    neither.does(&Command::GraceOver, day(19));
    assert_eq!(stands_at(&neither), (Status::Active, "pro", 1));
    assert!(matches!(paid(&mut neither, 1, 20)[..], [Effect::Refund { .. }]), "it was on its way");

    let mut later = both();
    refused(&mut later, 0, 12);
    paid(&mut later, 1, 13);
    later.does(&Command::GraceOver, day(19));
    assert_eq!(stands_at(&later), (Status::Unpaid, "team", 4));
    later.paid(day(100));
    assert_eq!((later.is.status, later.is.period.start), (Status::Active, day(100)), "and it pays for no other period");
    assert_eq!(later.totals().last(), Some(&(120 * UNIT)));

    let mut earlier = both();
    refused(&mut earlier, 1, 12);
    paid(&mut earlier, 0, 13);
    earlier.does(&Command::GraceOver, day(19));
    assert_eq!(stands_at(&earlier), (Status::Active, "team", 1));
}

/// [B-71] The next period stands on what is in force when it begins.
#[test]
fn a_change_is_not_taken_back_from_a_period_that_began_with_it() {
    let mut case = Case::active(pro());
    case.does(&to(team()), day(20));
    case.does(&Command::Renew, day(28));
    refused(&mut case, 0, 29);
    case.does(&Command::GraceOver, day(36));
    assert_eq!(stands_at(&case), (Status::Unpaid, "team", 1));
}

/// [B-71] Only what is owed for the period itself keeps one from it.
#[test]
fn beside_a_period_that_is_owed_a_change_is_taken_back_too() {
    let mut case = Case::active(pro());
    case.does(&Command::Renew, day(28));
    case.does(&SEATS, day(29));
    case.fails(day(29));
    refused(&mut case, 0, 30);
    case.does(&Command::GraceOver, day(37));
    assert_eq!(stands_at(&case), (Status::Unpaid, "pro", 1));
    paid(&mut case, 0, 100);
    assert_eq!((case.is.status, case.is.period.start), (Status::Active, day(100)), "it pays for a period from then on");
}

/// [B-72]
#[test]
fn what_is_wanted_for_the_next_period_is_still_wanted() {
    let lite = || terms("lite", "USD", Interval::Month, 10);
    let pending = |case: &Case| case.is.pending.as_ref().map(|pending| (pending.terms.plan.to_string(), pending.seats));
    let mut before = Case::active(pro());
    before.does(&down(lite()), day(1));
    before.does(&SEATS, day(2));
    before.fails(day(2));
    before.does(&Command::GraceOver, day(9));
    assert_eq!(pending(&before), Some(("lite".into(), 1)), "without the seats that were not paid");

    let mut since = Case::active(pro());
    since.does(&to(team()), day(2));
    since.fails(day(2));
    since.does(&down(lite()), day(3));
    since.does(&Command::GraceOver, day(9));
    assert_eq!(pending(&since), Some(("lite".into(), 1)));

    let mut same = Case::active(pro());
    same.does(&to(team()), day(2));
    same.fails(day(2));
    same.does(&down(pro()), day(3));
    same.does(&Command::GraceOver, day(9));
    assert_eq!((stands_at(&same), pending(&same)), ((Status::Active, "pro", 1), None), "it is that already");

    let mut less_of_more = Case::active(pro());
    less_of_more.does(&SEATS, day(2));
    less_of_more.fails(day(2));
    less_of_more.does(&Command::ChangeSeats { seats: 3 }, day(3));
    less_of_more.does(&Command::GraceOver, day(9));
    assert_eq!((stands_at(&less_of_more), pending(&less_of_more)), ((Status::Active, "pro", 1), None), "nobody asked for more than one");

    let mut fewer_of_less = Case::active(pro());
    fewer_of_less.does(&down(lite()), day(1));
    fewer_of_less.does(&SEATS, day(2));
    fewer_of_less.fails(day(2));
    fewer_of_less.does(&Command::ChangeSeats { seats: 3 }, day(3));
    fewer_of_less.does(&Command::GraceOver, day(9));
    assert_eq!(pending(&fewer_of_less), Some(("lite".into(), 1)));

    let mut on_after_all = Case::active(pro());
    on_after_all.does(&down(lite()), day(1));
    on_after_all.does(&SEATS, day(2));
    on_after_all.fails(day(2));
    on_after_all.does(&Command::CancelAtPeriodEnd, day(3));
    on_after_all.does(&Command::Uncancel, day(4));
    on_after_all.does(&Command::GraceOver, day(9));
    assert_eq!(pending(&on_after_all), None, "what was wanted before the end was wanted is not wanted any more");
}

/// [B-71] Who may says at Stripe that nobody is to pay: nothing is owed then, and no credit comes with it.
#[test]
fn a_charge_that_is_waived_is_owed_no_longer_and_brings_no_credit() {
    let waived = |period_start, reason: &str| Command::ChargeWaived { period_start, reason: reason.into() };
    let mut case = Case::active(pro());
    case.does(&Command::Renew, day(28));
    case.fails(day(28));
    case.does(&waived(day(28), "renewal"), day(30));
    assert_eq!((case.is.status, case.is.period.start, case.granted()), (Status::Active, day(28), vec![10 * UNIT]));
    assert_eq!(case.does(&waived(day(28), "renewal"), day(31)), [], "told again");

    let mut without_access = Case::active(pro());
    without_access.does(&Command::Renew, day(28));
    without_access.fails(day(28));
    without_access.does(&Command::GraceOver, day(35));
    without_access.does(&waived(day(28), "renewal"), day(100));
    assert_eq!((without_access.is.status, without_access.totals()), (Status::Canceled, vec![20 * UNIT; 2]), "nobody wants a new period");
    let mut in_its_period = Case::active(pro());
    in_its_period.does(&Command::Renew, day(28));
    in_its_period.fails(day(28));
    in_its_period.does(&Command::GraceOver, day(35));
    in_its_period.does(&waived(day(28), "renewal"), day(36));
    assert_eq!(stands_at(&in_its_period), (Status::Active, "pro", 1));
    in_its_period.does(&to(terms("pro", "USD", Interval::Year, 200)), day(37));
    assert_eq!(in_its_period.totals().last(), Some(&(200 * UNIT)), "nothing is counted as paid that was not");

    let mut given_up = Case::active(pro());
    given_up.does(&to(team()), day(1));
    given_up.fails(day(1));
    given_up.does(&Command::GraceOver, day(8));
    let reason = given_up.is.open[0].reason.clone();
    assert_eq!(given_up.does(&waived(day(0), &reason), day(9)), [], "that was us");
    assert!(given_up.is.refuses_payment(day(0), &reason));
}
