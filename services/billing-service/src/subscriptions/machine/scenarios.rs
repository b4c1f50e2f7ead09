//! One scenario for each way that a subscription goes [B-72]. January has 31 days: the first period is 31 January to 28 February.

mod changes;
mod coupons;
mod credit;
mod late;

use super::fixtures::{Case, UNIT, charges, day, down, pro, team, terms, to};
use super::start;
use crate::catalog::Interval;
use crate::subscriptions::command::{Command, Refusal};
use crate::subscriptions::preview::cost;
use crate::subscriptions::state::Effect;
use crate::subscriptions::status::Status;
use crate::subscriptions::terms::Terms;

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

/// [B-72] Its first period begins where the trial ends, and not a period later.
#[test]
fn a_preview_of_a_trial_says_what_is_charged_at_its_end() {
    for terms in [pro(), Terms { interval: Interval::Year, ..pro() }] {
        let begun = start(terms, 1, true, None, day(0)).unwrap();
        let preview = cost(&begun).unwrap();
        let mut case = Case::from(begun);
        case.does(&Command::BeginTrial, day(0));
        case.does(&Command::Renew, preview.next_at.unwrap());
        assert_eq!((preview.now, preview.next), (None, charges(&case.effects).pop().cloned()));
    }
}
