//! Usage that is reported to Stripe's meters: each hour once, whatever happens on the way.

use std::time::Duration;

use billing_service::state::AppState;
use billing_service::stripe::customers;
use billing_service::stripe::meters::{plan, sender};
use chrono::TimeDelta;
use futures::future::join_all;
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;

use super::shop::Shop;
use super::stripe_meter_desk::{
    EVENTS, PENDING, SENT, begin, compare, customer, deliver, first_hour, hourly, hours, keep, metered, mirror, open, quiet, report, sums,
    used, work, wrong,
};

/// [B-66] [B-75]
#[tokio::test]
async fn each_hour_that_has_ended_is_reported_once_for_each_organization_and_agrees_with_what_was_counted() {
    let shop = open().await;
    mirror(&shop, "sum").await;
    let ((ada_id, ada), (eve_id, eve)) = (customer(&shop, "sum").await, customer(&shop, "sum").await);
    work(&ada, "1", begin(), "1.5").await;
    work(&ada, "2", begin(), "2.2").await;
    shop.pass(Duration::from_mins(65));
    work(&ada, "3", shop.app.clock.now(), "5").await;
    work(&eve, "4", shop.app.clock.now(), "0.1").await;
    report(&shop).await;
    assert_eq!(shop.app.count(SENT).await, 0, "an hour is still being settled for ten minutes");
    shop.pass(Duration::from_mins(65));
    for _ in 0..3 {
        report(&shop).await;
        assert_eq!(sums(&shop, "jobs", ada_id).await, [(0, 37), (1, 50)]);
        assert_eq!(sums(&shop, "jobs", eve_id).await, [(1, 1)]);
        assert_eq!(shop.app.count(SENT).await, 3);
    }
    let expected = "select count(*) from stripe_meter_reports where version = 1
        and identifier = stripe_meter_identifier('jobs', organization_id, hour, 1) and length(identifier) < 100";
    assert_eq!(shop.app.count(expected).await, 3, "an identifier is of something that differs from try to try");
    let second_hour =
        "select count(*) from stripe_meters m cross join stripe_meter_counts(m.id, '2030-01-01T01:00:00Z', '2030-01-01T02:00:00Z')";
    assert_eq!(shop.app.count(second_hour).await, 2, "a look at the last hours reads others");
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-66] [B14] Langfuse's incident B14: a report whose mark was lost was sent again, refused as being there, and held up all others.
#[tokio::test]
async fn that_stripe_has_an_event_already_is_success_and_holds_up_no_other() {
    let (shop, organization, client) = metered("sum").await;
    first_hour(&shop, &client, "7").await;
    work(&client, "2", shop.app.clock.now(), "3").await;
    shop.pass(Duration::from_hours(1));
    // A mark that was never written. The tries are not forgotten: under the key of the first one its success would be played back.
    shop.app.as_owner("update stripe_meter_reports set state = 'pending', sent_at = null, doubt_at = null").await;
    report(&shop).await;
    assert_eq!(shop.app.count(SENT).await, 2);
    assert_eq!(sums(&shop, "jobs", organization).await, [(0, 70), (1, 30)]);
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-66] [B-65] [B-67] Done and answered with an error, not done and so answered, too many requests: at the first try of each.
#[tokio::test]
async fn a_report_counts_once_whatever_fails_on_the_way() {
    let (shop, organization, client) = metered("sum").await;
    hourly(&shop, &client, 6).await;
    shop.pass(Duration::from_mins(10));
    let kinds = [FaultKind::ErrorAfterEffect, FaultKind::ErrorBeforeEffect, FaultKind::RateLimited, FaultKind::ErrorAfterEffect];
    shop.stripe.turn_knobs(|knobs| knobs.faults = kinds.map(|kind| Fault::next(kind, "POST", EVENTS)).to_vec());
    report(&shop).await;
    assert_eq!(sums(&shop, "jobs", organization).await, (0..6).map(|hour| (hour, 10)).collect::<Vec<_>>());
    assert_eq!(shop.app.count("select count(*) from stripe_meter_reports where state = 'sent' and attempts > 1").await, 4);
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-66] A process that died after Stripe took its event, and before it wrote that down.
#[tokio::test]
async fn a_report_that_was_under_way_when_its_process_died_counts_once() {
    let (shop, organization, client) = metered("sum").await;
    first_hour(&shop, &client, "7").await;
    work(&client, "2", begin(), "2").await;
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(FaultKind::TimeoutAfterEffect, "POST", EVENTS)]);
    let state = shop.app.state();
    plan::all(&state).await.unwrap();
    let dies = tokio::spawn(async move { sender::flush(&state, state.stripe.as_ref().unwrap()).await });
    eventually("the effect", || async { (sums(&shop, "jobs", organization).await == [(0, 90)]).then_some(()) }).await;
    dies.abort();
    assert_eq!(shop.app.count(PENDING).await, 1, "it is noted before it is sent");
    shop.pass(Duration::from_mins(2));
    deliver(&shop).await;
    assert_eq!((sums(&shop, "jobs", organization).await, shop.app.count(SENT).await), (vec![(0, 90)], 2));
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-64] [B-66] Stripe forgets identifiers after a day: what may be there is looked for before it is sent again.
#[tokio::test]
async fn after_a_day_without_an_answer_the_sums_are_looked_at_before_a_report_is_sent_again() {
    for (kind, at_first) in [(FaultKind::ErrorAfterEffect, vec![(0, 70)]), (FaultKind::ErrorBeforeEffect, vec![])] {
        let shop = open().await;
        mirror(&shop, "sum").await;
        let (organization, client) = customer(&shop, "sum").await;
        work(&client, "1", begin(), "7").await;
        shop.pass(Duration::from_mins(75));
        shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(kind, "POST", EVENTS)]);
        plan::all(&shop.app.state()).await.unwrap();
        let state = shop.app.state();
        eventually("the first try", || async {
            sender::flush(&state, state.stripe.as_ref().unwrap()).await.unwrap();
            let tried = "select count(*) from stripe_meter_reports where attempts = 1 and claimed_until is null and doubt_at is not null";
            (shop.app.count(tried).await == 1).then_some(())
        })
        .await;
        assert_eq!(sums(&shop, "jobs", organization).await, at_first);
        shop.pass(Duration::from_hours(30));
        deliver(&shop).await;
        assert_eq!((sums(&shop, "jobs", organization).await, shop.app.count(SENT).await), (vec![(0, 70)], 1), "{kind:?}");
        assert_eq!(wrong(&compare(&shop).await), []);
    }
}

/// [B-66] Stripe is away for hours.
#[tokio::test]
async fn while_stripe_is_away_nothing_is_lost_and_afterwards_nothing_counts_twice() {
    let (shop, organization, client) = metered("sum").await;
    // Known before: the answer to whoever makes it now would be played back for a day.
    let state = shop.app.state();
    customers::ensure(&state, state.stripe.as_ref().unwrap(), organization).await.unwrap();
    let away = Fault { count: 10_000, ..Fault::next(FaultKind::ErrorBeforeEffect, "POST", "/v1/") };
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![away]);
    for hour in 0..4 {
        work(&client, &hour.to_string(), shop.app.clock.now(), "1").await;
        shop.pass(Duration::from_mins(61));
        let state = shop.app.state();
        plan::all(&state).await.unwrap();
        sender::flush(&state, state.stripe.as_ref().unwrap()).await.unwrap();
    }
    assert_eq!(shop.app.count(SENT).await, 0);
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    shop.pass(Duration::from_hours(3));
    report(&shop).await;
    assert_eq!(sums(&shop, "jobs", organization).await, [(0, 10), (1, 10), (2, 10), (3, 10)]);
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-66] [B-67]
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_plan_and_send_at_the_same_time_report_each_hour_once() {
    let shop = open().await;
    mirror(&shop, "sum").await;
    let customers = join_all((0..3).map(|_| customer(&shop, "sum"))).await;
    for hour in 0..4 {
        for (_, client) in &customers {
            work(client, &hour.to_string(), shop.app.clock.now(), "1").await;
        }
        shop.pass(Duration::from_hours(1));
    }
    shop.pass(Duration::from_mins(10));
    // Long enough for another one to come meanwhile: Stripe refuses it then.
    let slow = Fault { delay_ms: 30, count: 12, ..Fault::next(FaultKind::Slow, "POST", EVENTS) };
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![slow]);
    let replica = async |state: AppState| {
        plan::all(&state).await.unwrap();
        sender::flush(&state, state.stripe.as_ref().unwrap()).await.unwrap();
    };
    tokio::join!(replica(shop.app.state()), replica(shop.app.state()), replica(shop.app.state()));
    deliver(&shop).await;
    assert_eq!(shop.app.count(SENT).await, 12);
    assert_eq!(shop.app.count("select count(*) from stripe_meter_reports where attempts > 1").await, 0, "two at a time");
    for (organization, _) in &customers {
        assert_eq!(sums(&shop, "jobs", *organization).await, [(0, 10), (1, 10), (2, 10), (3, 10)]);
    }
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-66] [B-59]
#[tokio::test]
async fn what_comes_late_is_reported_as_the_difference_and_what_is_taken_back_too() {
    let shop = open().await;
    mirror(&shop, "sum").await;
    keep(&shop, "chat", &["--chat-usage", "USD"]).await;
    let (organization, client) = customer(&shop, "sum").await;
    work(&client, "1", begin(), "7").await;
    used(&shop, organization, begin(), 500).await;
    shop.pass(Duration::from_hours(10));
    report(&shop).await;
    assert_eq!((sums(&shop, "jobs", organization).await, sums(&shop, "chat", organization).await), (vec![(0, 70)], vec![(0, 500)]));
    work(&client, "2", begin() + hours(1) - TimeDelta::seconds(1), "0.5").await;
    // A request that was given up for dead is replaced by what it really used.
    used(&shop, organization, begin(), -200).await;
    report(&shop).await;
    assert_eq!((sums(&shop, "jobs", organization).await, sums(&shop, "chat", organization).await), (vec![(0, 75)], vec![(0, 300)]));
    let differences = "select count(*) from stripe_meter_reports where version = 2 and value in (5, -200)";
    assert_eq!(shop.app.count(differences).await, 2);
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-66] Hours' maxima and numbers of different values are no sums: there the last one stands.
#[tokio::test]
async fn where_hours_cannot_be_added_the_last_value_stands_and_a_late_one_replaces_it() {
    for (aggregation, first, later) in [("max", 40, 90), ("unique", 20, 30)] {
        let shop = open().await;
        mirror(&shop, aggregation).await;
        let (organization, client) = customer(&shop, aggregation).await;
        work(&client, "1", begin(), "4").await;
        work(&client, "2", begin(), "3").await;
        shop.pass(Duration::from_hours(2));
        report(&shop).await;
        assert_eq!(sums(&shop, "jobs", organization).await, [(0, first)]);
        work(&client, "3", begin(), "9").await;
        report(&shop).await;
        assert_eq!(sums(&shop, "jobs", organization).await, [(0, later)]);
        assert_eq!(wrong(&compare(&shop).await), []);
    }
}

/// [B-66] [B-40] What requests took beyond the wallet is debt in the ledger, and the same in Stripe's meter.
#[tokio::test]
async fn chat_is_reported_as_what_it_was_sold_for_and_as_what_went_beyond_the_wallet() {
    let shop = quiet(Shop::with(|config| config.signup_grant = 1500).await).await;
    for (name, source) in [("usage", "--chat-usage"), ("overage", "--chat-overage")] {
        keep(&shop, name, &[source, "USD"]).await;
    }
    let (organization, client) = shop.app.organization();
    let reservation = shop.app.reserve(&shop.app.reservation(organization, shop.app.request(), 0, 100)).await.expect(201);
    shop.app.settle(&reservation.string("id"), &shop.app.usage(0, 200)).await.expect(200);
    assert_eq!(shop.app.balance(&client).await, (1500 - 2400, 0));
    shop.pass(Duration::from_hours(2));
    report(&shop).await;
    assert_eq!(sums(&shop, "usage", organization).await, [(0, 2400)]);
    assert_eq!(sums(&shop, "overage", organization).await, [(0, 900)]);
    assert_eq!(wrong(&compare(&shop).await), []);
}
