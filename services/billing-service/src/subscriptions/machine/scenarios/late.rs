//! Payments that fail, come late, or never [B-71]. January has 31 days: the first period is 31 January to 28 February.

use crate::catalog::Interval;
use crate::subscriptions::command::{Command, Refusal};
use crate::subscriptions::machine::fixtures::{Case, UNIT, day, down, grants, pro, team, terms, to};
use crate::subscriptions::machine::{change_of_plan, decide, start};
use crate::subscriptions::state::Effect;
use crate::subscriptions::status::Status;
use crate::subscriptions::terms::Terms;

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
