//! One scenario for each way that a subscription goes [B-72]. January has 31 days: the first period is 31 January to 28 February.

use std::collections::BTreeSet;

use super::fixtures::{Case, UNIT, charges, day, down, grants, pro, team, terms, to};
use super::{change_of_plan, decide, start};
use crate::catalog::Interval;
use crate::subscriptions::command::{AppliedCoupon, Command, Lasts, Off, Refusal};
use crate::subscriptions::preview::cost;
use crate::subscriptions::state::Effect;
use crate::subscriptions::status::Status;
use crate::subscriptions::terms::{CreditEnd, CreditTerms, Terms};

/// [B-71] [B-77] [B-70]
#[test]
fn a_purchase_gives_access_and_credit_when_it_is_paid_and_once() {
    let mut case = Case::from(start(pro(), 1, false, None, day(0)).unwrap());
    assert_eq!((case.is.status, case.granted()), (Status::Incomplete, vec![]));
    let paid = Command::PaymentSucceeded { period_start: day(0), reason: "start".into() };
    case.does(&paid, day(0));
    let revision = case.is.revision;
    assert_eq!(case.does(&paid, day(1)), [], "told again");
    assert_eq!(
        (case.is.status, case.is.revision, case.totals(), case.granted()),
        (Status::Active, revision, vec![20 * UNIT], vec![10 * UNIT])
    );
}

#[test]
fn a_free_plan_is_active_at_once() {
    let free = start(terms("free", "USD", Interval::Month, 0), 1, false, None, day(0)).unwrap();
    assert_eq!((free.subscription.status, charges(&free.effects)), (Status::Active, vec![]));
}

/// [B-71]
#[test]
fn a_first_payment_that_does_not_come_in_23_hours_ends_it_and_one_that_comes_later_is_paid_back() {
    let mut case = Case::from(start(pro(), 1, false, None, day(0)).unwrap());
    let due = case.is.next_action_at().unwrap();
    assert_eq!(due - day(0), chrono::TimeDelta::hours(23));
    assert_eq!(case.attempt(&Command::Expire, due - chrono::TimeDelta::milliseconds(1)), Err(Refusal::NotDue));
    case.does(&Command::Expire, due);
    assert_eq!(case.is.status, Status::IncompleteExpired);
    let late = case.does(&Command::PaymentSucceeded { period_start: day(0), reason: "start".into() }, day(2));
    assert_eq!(late, [Effect::Refund { period_start: day(0), reason: "start".into() }]);
    assert_eq!((case.is.status, case.granted()), (Status::IncompleteExpired, vec![]));
}

/// [B-72]
#[test]
fn an_upgrade_now_costs_the_difference_for_the_rest_of_the_period() {
    let mut case = Case::active(pro());
    let effects = case.does(&to(team()), day(14));
    let upgrade = charges(&effects)[0];
    let amounts: Vec<i64> = upgrade.lines.iter().map(|line| line.amount_micros).collect();
    assert_eq!((amounts, upgrade.total_micros), (vec![-10 * UNIT, 50 * UNIT], 40 * UNIT), "half of 28 days is left");
    assert_eq!(case.is.terms, team());
    assert!(effects.contains(&Effect::EntitlementsChanged), "in force at once");
    case.paid(day(14));
    assert_eq!(case.granted(), [10 * UNIT, 20 * UNIT], "half of the difference of the credit, when paid");
    case.does(&Command::Renew, day(28));
    assert_eq!(case.totals(), [20 * UNIT, 40 * UNIT, 100 * UNIT]);
}

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

/// [B-60]
#[test]
fn from_a_month_to_a_year_a_new_period_begins_and_the_rest_of_the_month_counts() {
    let mut case = Case::active(pro());
    case.does(&to(terms("pro", "USD", Interval::Year, 200)), day(14));
    assert_eq!(case.totals(), [20 * UNIT, 190 * UNIT]);
    assert_eq!((case.is.period.start, case.is.period.end), (day(14), "2027-02-14T00:00:00Z".parse().unwrap()));
    let back = to(terms("pro", "USD", Interval::Month, 500));
    assert_eq!(case.attempt(&back, day(15)), Err(Refusal::NotAnUpgrade), "from a year to a month only when the year is over");
}

/// [B-72]
#[test]
fn a_downgrade_begins_when_the_period_ends() {
    let mut case = Case::active(team());
    assert_eq!(case.attempt(&to(pro()), day(3)), Err(Refusal::NotAnUpgrade));
    assert_eq!(case.does(&down(pro()), day(3)), [], "nothing to pay, nothing taken away");
    assert_eq!(case.is.terms, team());
    case.does(&Command::Renew, day(28));
    assert_eq!((case.is.terms.plan.as_str(), case.totals()), ("pro", vec![100 * UNIT, 20 * UNIT]));
}

/// [B-72]
#[test]
fn an_end_with_the_period_can_be_taken_back_until_it_has_come() {
    let mut case = Case::active(pro());
    case.does(&Command::CancelAtPeriodEnd, day(3));
    assert_eq!(case.attempt(&Command::Renew, day(27)), Err(Refusal::NotDue));
    case.does(&Command::Uncancel, day(4));
    assert_eq!(case.attempt(&Command::Uncancel, day(4)), Err(Refusal::NotCanceling));
    case.does(&Command::Renew, day(28));
    case.does(&Command::CancelAtPeriodEnd, day(29));
    case.does(&Command::Renew, day(59));
    assert_eq!((case.is.status, case.is.ended_at, case.totals().len()), (Status::Canceled, Some(day(59)), 2));
}

/// [B-18]
#[test]
fn what_is_over_stays_over() {
    let mut case = Case::active(pro());
    case.does(&Command::CancelNow, day(3));
    for command in [Command::Renew, Command::Resume, Command::Uncancel, Command::CancelNow, to(team()), Command::Expire, Command::GraceOver]
    {
        assert_eq!(case.attempt(&command, day(40)), Err(Refusal::Ended), "{command:?}");
    }
}

/// [B-72]
#[test]
fn a_change_of_plan_while_an_end_is_pending_upgrades_until_the_end_and_refuses_what_would_come_after() {
    let mut case = Case::active(pro());
    case.does(&Command::CancelAtPeriodEnd, day(1));
    assert_eq!(case.attempt(&down(terms("lite", "USD", Interval::Month, 5)), day(2)), Err(Refusal::CancelPending));
    case.does(&to(team()), day(14));
    assert!(case.is.cancel_at_period_end);
    case.does(&Command::Renew, day(28));
    assert_eq!((case.is.status, case.totals()), (Status::Canceled, vec![20 * UNIT, 40 * UNIT]));
}

/// [B-72]
#[test]
fn an_upgrade_during_the_trial_keeps_the_trial_and_its_first_charge_is_of_the_new_plan() {
    let mut case = Case::trial();
    let effects = case.does(&to(team()), day(5));
    assert_eq!(effects, [Effect::EntitlementsChanged]);
    assert_eq!((case.is.status, case.is.period.end), (Status::Trialing, day(14)));
    case.does(&Command::Renew, day(14));
    assert_eq!((case.is.status, case.totals()), (Status::Active, vec![100 * UNIT]));
    assert_eq!(case.is.period.start, day(14));
    assert_eq!(case.granted(), Vec::<i64>::new(), "credit comes with the payment");
}

#[test]
fn a_trial_that_is_canceled_costs_nothing() {
    let mut case = Case::trial();
    case.does(&Command::CancelAtPeriodEnd, day(5));
    case.does(&Command::Renew, day(14));
    assert_eq!((case.is.status, case.totals()), (Status::Canceled, vec![]));
}

/// [B-71]
#[test]
fn a_failed_payment_keeps_access_for_the_grace_and_a_late_one_begins_a_new_period() {
    let mut case = Case::active(pro());
    case.does(&Command::Renew, day(28));
    case.fails(day(28));
    assert_eq!((case.is.status, case.is.next_action_at()), (Status::PastDue, Some(day(35))));
    assert_eq!(case.attempt(&to(team()), day(29)), Err(Refusal::Status(Status::PastDue)));
    let wish = |terms: Terms| change_of_plan(&case.is, Box::new(terms), 1, day(29));
    assert!(matches!(wish(team()), Command::Upgrade { .. }), "more is refused as what it is");
    let less = wish(terms("lite", "USD", Interval::Month, 10));
    assert!(matches!(less, Command::Downgrade { .. }) && decide(&case.is, &less, day(29)).is_ok(), "{less:?}");
    case.is.seats = 2;
    let seats = |seats| {
        decide(&case.is, &Command::ChangeSeats { seats }, day(29)).map(|decided| decided.subscription.pending.map(|then| then.seats))
    };
    assert_eq!((seats(1), seats(3)), (Ok(Some(1)), Err(Refusal::Status(Status::PastDue))), "fewer seats, and no more of them");
    case.is.seats = 1;
    assert_eq!(case.attempt(&Command::GraceOver, day(34)), Err(Refusal::NotDue));
    case.does(&Command::GraceOver, day(35));
    assert_eq!((case.is.status, case.is.next_action_at()), (Status::Unpaid, None));
    case.paid(day(100));
    assert_eq!((case.is.status, case.is.period.start), (Status::Active, day(100)));
    assert_eq!(case.totals(), [20 * UNIT; 2], "what is paid late is paid once, for the period that begins with it");
    let expiries: Vec<_> = grants(&case.effects).iter().map(|grant| grant.expires_at).collect();
    assert_eq!(expiries[1], case.is.terms.credit.unwrap().expires_at(case.is.period, day(100)), "its credit lasts as long as that");
    assert_eq!(case.is.next_action_at(), Some(case.is.period.end));
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

/// [B-71] [B-72] Who pays for the dear plan has it; what was wanted for the next period begins with the next one.
#[test]
fn a_late_payment_begins_a_period_of_what_it_pays_for_and_what_was_wanted_comes_after_it() {
    let mut case = Case::active(team());
    case.does(&Command::Renew, day(28));
    case.fails(day(28));
    case.does(&down(pro()), day(29));
    case.does(&Command::GraceOver, day(35));
    case.paid(day(100));
    assert_eq!((case.is.terms.plan.as_str(), case.totals()), ("team", vec![100 * UNIT; 2]));
    case.does(&Command::Renew, case.is.period.end);
    assert_eq!((case.is.terms.plan.as_str(), case.is.pending.clone()), ("pro", None));
    assert_eq!(case.totals(), [100 * UNIT, 100 * UNIT, 20 * UNIT]);
}

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

/// [B-72] Who looks at the page and goes has begun nothing, and is charged for nothing.
#[test]
fn a_trial_begins_with_its_card_and_not_before() {
    let mut case = Case::from(start(pro(), 1, true, None, day(0)).unwrap());
    assert_eq!((case.is.status, case.is.waits_for_card()), (Status::Incomplete, true));
    let mut late = Case::from(start(pro(), 1, true, None, day(0)).unwrap());
    late.does(&Command::Expire, day(1));
    assert_eq!((late.is.status, late.totals()), (Status::IncompleteExpired, vec![]));
    assert_eq!(late.attempt(&Command::BeginTrial, day(2)), Err(Refusal::Ended));
    case.does(&Command::BeginTrial, day(0) + chrono::TimeDelta::hours(20));
    assert_eq!((case.is.status, case.is.period.end), (Status::Trialing, day(14) + chrono::TimeDelta::hours(20)), "all of it");
    assert_eq!(case.attempt(&Command::BeginTrial, day(2)), Err(Refusal::Status(Status::Trialing)));
    let free = Terms { trial_days: 14, ..terms("free", "USD", Interval::Month, 0) };
    assert_eq!(start(free, 1, true, None, day(0)).unwrap().subscription.status, Status::Trialing, "what costs nothing needs no card");
}

/// [B-71] Who has no access any more is not charged for it, and what comes all the same goes back.
#[test]
fn what_a_subscription_ended_over_is_given_up_and_a_payment_of_it_goes_back() {
    let unpaid = |case: &mut Case| {
        case.does(&Command::GraceOver, day(35));
        case.does(&Command::CancelNow, day(36))
    };
    let at_the_end_of_the_grace = |case: &mut Case| {
        case.does(&Command::CancelAtPeriodEnd, day(29));
        case.does(&Command::GraceOver, day(35))
    };
    for ends in [unpaid, at_the_end_of_the_grace] {
        let mut case = Case::active(pro());
        case.does(&Command::Renew, day(28));
        case.fails(day(28));
        let (period_start, reason) = (day(28), "renewal".to_owned());
        let given_up = Effect::GiveUp { period_start, reason: reason.clone() };
        assert!(ends(&mut case).contains(&given_up));
        let late = case.does(&Command::PaymentSucceeded { period_start, reason: reason.clone() }, day(40));
        assert_eq!(late, [Effect::Refund { period_start, reason }]);
        assert_eq!((case.is.status, case.granted()), (Status::Canceled, vec![10 * UNIT]));
    }
}

/// What was had is paid, though its payment takes days.
#[test]
fn a_payment_that_is_on_its_way_when_the_period_ends_is_not_given_up() {
    let mut case = Case::active(pro());
    case.does(&Command::Renew, day(28));
    case.does(&Command::CancelAtPeriodEnd, day(29));
    assert_eq!(case.does(&Command::Renew, day(59)), [Effect::EntitlementsChanged]);
    case.paid(day(60));
    assert_eq!((case.is.status, case.granted()), (Status::Canceled, vec![10 * UNIT; 2]));
}

#[test]
fn a_payment_that_is_mended_in_the_grace_changes_no_date() {
    let mut case = Case::active(pro());
    case.does(&Command::Renew, day(28));
    case.fails(day(28));
    case.paid(day(30));
    assert_eq!((case.is.status, case.is.grace_until, case.is.period.start), (Status::Active, None, day(28)));
    assert_eq!(case.granted(), [10 * UNIT; 2]);
}

#[test]
fn a_pause_stops_charges_and_going_on_begins_where_it_is() {
    let mut case = Case::active(pro());
    case.does(&Command::Pause, day(3));
    assert_eq!(case.attempt(&Command::Renew, day(28)), Err(Refusal::Status(Status::Paused)));
    case.does(&Command::Resume, day(10));
    assert_eq!(case.is.period.end, day(28), "the paid period goes on");
    case.does(&Command::Pause, day(11));
    case.does(&Command::Resume, day(90));
    assert_eq!((case.is.period.start, case.totals().len()), (day(90), 2));
}

#[test]
fn more_seats_are_paid_for_the_rest_of_the_period_and_fewer_come_with_the_next() {
    let mut case = Case::active(pro());
    case.does(&Command::ChangeSeats { seats: 4 }, day(14));
    assert_eq!(case.totals(), [20 * UNIT, 2 * UNIT], "two beyond those included, two dollars each, half of the period");
    case.paid(day(14));
    case.does(&Command::ChangeSeats { seats: 3 }, day(15));
    assert_eq!(case.is.seats, 4);
    case.does(&Command::Renew, day(28));
    assert_eq!((case.is.seats, case.totals()[2]), (3, 22 * UNIT));
    assert_eq!(case.attempt(&Command::ChangeSeats { seats: 21 }, day(30)), Err(Refusal::Seats));
    assert_eq!(case.attempt(&Command::ChangeSeats { seats: 0 }, day(30)), Err(Refusal::Seats));
}

fn coupon(off: Off, lasts: Lasts) -> AppliedCoupon {
    AppliedCoupon { code: "launch".parse().unwrap(), off, lasts, plans: BTreeSet::new() }
}

/// [B16] [B-77]
#[test]
fn two_changes_at_one_instant_are_two_charges_with_keys_of_their_own() {
    let mut case = Case::active(pro());
    case.does(&to(team()), day(14));
    case.paid(day(14));
    case.does(&Command::ChangeSeats { seats: 4 }, day(14));
    case.paid(day(14));
    case.does(&Command::ChangeSeats { seats: 6 }, day(14));
    let made = charges(&case.effects);
    let mut keys: Vec<_> = made.iter().map(|charge| (charge.period_start, charge.reason.clone())).collect();
    keys.sort();
    keys.dedup();
    assert_eq!((made.len(), keys.len()), (4, 4), "{made:?}");
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

#[test]
fn another_group_or_currency_is_refused() {
    let mut case = Case::active(pro());
    let other = Terms { group: "other".parse().unwrap(), ..team() };
    assert_eq!(case.attempt(&to(other), day(1)), Err(Refusal::OtherGroup));
    assert_eq!(case.attempt(&to(terms("team", "EUR", Interval::Month, 100)), day(1)), Err(Refusal::OtherCurrency));
}

/// [B-72]
#[test]
fn a_preview_says_what_is_then_charged() {
    let mut case = Case::active(pro());
    let preview = cost(&super::decide(&case.is, &to(team()), day(14)).unwrap()).unwrap();
    case.does(&to(team()), day(14));
    case.paid(day(14));
    case.does(&Command::Renew, preview.next_at.unwrap());
    assert_eq!(case.totals()[1..], [preview.now.unwrap().total_micros, preview.next.unwrap().total_micros]);
}
