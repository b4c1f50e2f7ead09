//! What people decide about Stripe's meters: which there are, and what becomes of reports that were set aside.

use std::time::Duration;

use billing_service::audit::Decision;
use billing_service::operations;
use billing_service::stripe::meters::mirrors::{self, NewMirror, Source};
use billing_service::stripe::meters::{parked, plan, sender};
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;

use super::stripe_meter_desk::{
    EVENTS, PENDING, SENT, begin, compare, customer, deliver, flush, hourly, hours, in_doubt, metered, mirror, open, report, sums,
    sums_since, work, wrong,
};
use super::wallet::run;

/// [B-66]
#[tokio::test]
async fn what_stripe_does_not_want_is_set_aside_with_its_reason_and_the_others_go_on() {
    let shop = open().await;
    mirror(&shop, "sum").await;
    let ((refused, ada), (other, eve)) = (customer(&shop, "sum").await, customer(&shop, "sum").await);
    work(&ada, "1", begin(), "1").await;
    shop.pass(Duration::from_mins(75));
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(FaultKind::Refused, "POST", EVENTS)]);
    report(&shop).await;
    work(&eve, "2", shop.app.clock.now(), "2").await;
    shop.pass(Duration::from_hours(1));
    report(&shop).await;
    assert_eq!(sums(&shop, "jobs", other).await, [(1, 20)]);
    let aside = parked::list(&shop.app.state()).await.unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!((aside[0].organization, aside[0].value), (refused, 10));
    assert_eq!(wrong(&compare(&shop).await), [("meter_parked", "10", aside[0].reason.as_str())]);
    let line = ["stripe", "meters", "replay", aside[0].identifier.as_str(), "--actor", "ada", "--reason", "it is mended"];
    run(&shop.app, &line).await.unwrap();
    run(&shop.app, &line).await.unwrap_err();
    deliver(&shop).await;
    assert_eq!(sums(&shop, "jobs", refused).await, [(0, 10)]);
    assert_eq!(wrong(&compare(&shop).await), []);
    assert_eq!(shop.app.count("select count(*) from audit_log where action = 'stripe.meter.replay'").await, 1);
}

/// [B-66] What is too old when Stripe is back is set aside, and dated now when somebody says so.
#[tokio::test]
async fn a_report_that_became_too_old_is_set_aside_and_counts_today_when_somebody_decides_that() {
    let (shop, organization, client) = metered("sum").await;
    work(&client, "1", begin(), "7").await;
    shop.pass(Duration::from_mins(75));
    let away = Fault { count: 10_000, ..Fault::next(FaultKind::ErrorBeforeEffect, "POST", EVENTS) };
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![away]);
    plan::all(&shop.app.state()).await.unwrap();
    shop.pass(Duration::from_hours(36 * 24));
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    deliver(&shop).await;
    let aside = parked::list(&shop.app.state()).await.unwrap();
    assert!(aside.len() == 1 && aside[0].reason.starts_with("too_old"), "{aside:?}");
    // Not by the command, which has a clock of its own.
    let state = shop.app.state();
    let decision = Decision::new(&state, "ada".to_owned(), "Stripe was away".to_owned(), None);
    assert_eq!(parked::replay(&state, &decision, &[], true).await.unwrap(), [aside[0].identifier.clone()]);
    deliver(&shop).await;
    assert_eq!(sums(&shop, "jobs", organization).await, []);
    assert_eq!(sums_since(&shop, "jobs", organization, begin() + hours(36 * 24)).await, [(1, 70)]);
    shop.pass(Duration::from_hours(1));
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-66] Whether it was there before its customer was deleted, nobody can say: it does not wait for an answer for ever.
#[tokio::test]
async fn a_report_in_doubt_whose_customer_is_gone_is_set_aside_as_unclear() {
    let (shop, organization, client) = metered("sum").await;
    work(&client, "1", begin(), "1").await;
    shop.pass(Duration::from_mins(75));
    in_doubt(&shop, FaultKind::ErrorAfterEffect).await;
    let deleted = shop.stripe_customer(organization).await;
    shop.delete_at_stripe(&format!("/v1/customers/{deleted}")).await;
    shop.pass(Duration::from_hours(30));
    shop.app.as_owner("update stripe_meter_reports set next_attempt_at = 'epoch'").await;
    deliver(&shop).await;
    let aside = parked::list(&shop.app.state()).await.unwrap();
    assert!(aside.len() == 1 && aside[0].reason.starts_with("unclear: "), "{aside:?}");
}

/// [B-66] A meter that nobody can report to: what waits for it ends where Stripe would take it no longer.
#[tokio::test]
async fn what_waits_for_a_meter_that_cannot_be_had_is_set_aside_when_it_is_too_old() {
    let shop = open().await;
    let fields = [("display_name", "Jobs"), ("event_name", "jobs"), ("default_aggregation[formula]", "count")];
    shop.dashboard("/v1/billing/meters", &fields).await;
    mirror(&shop, "sum").await;
    let (_, client) = customer(&shop, "sum").await;
    work(&client, "1", begin(), "1").await;
    shop.pass(Duration::from_hours(2));
    plan::all(&shop.app.state()).await.unwrap();
    flush(&shop).await;
    assert_eq!(shop.app.count(PENDING).await, 1);
    shop.pass(Duration::from_hours(35 * 24));
    plan::all(&shop.app.state()).await.unwrap();
    assert!(parked::list(&shop.app.state()).await.unwrap()[0].reason.starts_with("too_old: "));
    assert_eq!(shop.app.count(PENDING).await, 0);
}

/// [B-66] [B-78]
#[tokio::test]
async fn who_names_no_report_replays_none_that_may_be_there_and_dates_none_that_is_not_too_old() {
    let (shop, organization, client) = metered("sum").await;
    hourly(&shop, &client, 3).await;
    shop.pass(Duration::from_mins(10));
    report(&shop).await;
    // Stripe has forgotten their identifiers.
    shop.pass(Duration::from_hours(25));
    shop.app
        .as_owner(
            "update stripe_meter_reports set state = 'parked', sent_at = null,
             reason = (array['unclear: who knows', 'too_old: it was away', 'other'])[1 + extract(hour from hour at time zone 'UTC')::integer]",
        )
        .await;
    let aside: Vec<String> = parked::list(&shop.app.state()).await.unwrap().into_iter().map(|one| one.identifier).collect();
    let with_reason = async |like: &str| -> Vec<String> {
        sqlx::query_scalar("select identifier from stripe_meter_reports where reason like $1 order by identifier")
            .bind(like)
            .fetch_all(&shop.app.database.owner)
            .await
            .unwrap()
    };
    let (unclear, too_old, other) = (with_reason("unclear%").await, with_reason("too_old%").await, with_reason("other").await);
    let state = shop.app.state();
    let replay = async |identifiers: &[String], dated_now| {
        let decision = Decision::new(&state, "ada".to_owned(), "a test".to_owned(), None);
        parked::replay(&state, &decision, identifiers, dated_now).await.unwrap()
    };
    assert_eq!(aside.len(), 3);
    assert_eq!(replay(&[], true).await, too_old);
    assert_eq!(replay(&[], false).await, other);
    assert_eq!(replay(&[], false).await, Vec::<String>::new());
    deliver(&shop).await;
    // The one that was dated now counts again, as somebody wanted; the other one was there.
    assert_eq!(sums(&shop, "jobs", organization).await, [(0, 10), (1, 10), (2, 10), (28, 10)]);
    assert_eq!(replay(&unclear, false).await, unclear);
    deliver(&shop).await;
    assert_eq!(sums(&shop, "jobs", organization).await, [(0, 20), (1, 10), (2, 10), (28, 10)]);
}

/// [B-78]
#[tokio::test]
async fn what_is_kept_at_stripe_is_decided_by_name_and_what_breaks_a_rule_is_refused() {
    let shop = open().await;
    let by = ["--actor", "ada", "--reason", "a test"];
    let refused = [
        vec!["add", "no spaces", "--meter", "sum"],
        vec!["add", "jobs", "--meter", "sum", "--decimals", "7"],
        vec!["add", "jobs", "--chat-usage", "XXX"],
        vec!["add", "jobs", "--chat-usage", "USD", "--decimals", "1"],
        vec!["add", "jobs", "--chat-usage", "USD", "--meter", "sum"],
        vec!["add", "jobs"],
        vec!["stop", "jobs"],
    ];
    for words in refused {
        let line = [&["stripe", "meters"], &words[..], &by].concat();
        assert!(run(&shop.app, &line).await.is_err(), "{words:?}");
    }
    assert_eq!(shop.app.count("select count(*) from audit_log where action like 'stripe.meter.%'").await, 0);
    mirror(&shop, "sum").await;
    let again = [&["stripe", "meters", "add", "jobs", "--chat-usage", "USD"][..], &by].concat();
    assert!(run(&shop.app, &again).await.is_err(), "a name is kept twice");
    let (organization, client) = customer(&shop, "sum").await;
    work(&client, "1", begin(), "1").await;
    // The command has a clock of its own, so that the hour is that of another year.
    run(&shop.app, &[&["stripe", "meters", "add", "other", "--chat-usage", "USD"][..], &by].concat()).await.unwrap();
    run(&shop.app, &[&["stripe", "meters", "stop", "other"][..], &by].concat()).await.unwrap();
    let state = shop.app.state();
    let decision = || Decision::new(&state, "ada".to_owned(), "a test".to_owned(), None);
    deliver(&shop).await;
    mirrors::stop(&state, &decision(), "jobs").await.unwrap();
    let from = |since| NewMirror {
        event_name: "late".to_owned(),
        source: Source::ChatUsage { currency: "USD".to_owned() },
        decimals: 0,
        since: Some(since),
    };
    for since in [begin() - hours(34 * 24 + 1), shop.app.clock.now() + hours(1)] {
        mirrors::add(&state, &decision(), &from(since)).await.unwrap_err();
    }
    mirrors::add(&state, &decision(), &from(begin() - hours(33 * 24))).await.unwrap();
    shop.pass(Duration::from_hours(1));
    work(&client, "2", shop.app.clock.now(), "1").await;
    shop.pass(Duration::from_hours(2));
    report(&shop).await;
    assert_eq!(sums(&shop, "jobs", organization).await, [(0, 10)]);
    let kept = mirrors::list(&state).await.unwrap();
    assert_eq!((kept.len(), kept[0].pending, kept[0].ended_at), (3, 0, Some(begin() + hours(1))));
    assert!(kept[1].ended_at.is_none() && kept[2].ended_at.is_some(), "{kept:?}");
    assert_eq!(shop.app.count("select count(*) from audit_log where action in ('stripe.meter.add', 'stripe.meter.stop')").await, 5);
}

/// [B-66] A meter that adds up differently there is told, and nothing is reported to it. Who gives it up is told of it no longer.
#[tokio::test]
async fn nothing_is_reported_to_a_meter_that_adds_up_differently_and_one_that_is_stopped_waits_for_nothing() {
    for differs in [("default_aggregation[formula]", "count"), ("event_time_window", "hour")] {
        unusable(differs).await;
    }
}

async fn unusable(differs: (&str, &str)) {
    let shop = open().await;
    let mut fields = vec![("display_name", "Jobs"), ("event_name", "jobs"), differs];
    if differs.0 != "default_aggregation[formula]" {
        fields.push(("default_aggregation[formula]", "sum"));
    }
    shop.dashboard("/v1/billing/meters", &fields).await;
    mirror(&shop, "sum").await;
    let (_, client) = customer(&shop, "sum").await;
    work(&client, "1", begin(), "1").await;
    shop.pass(Duration::from_hours(2));
    let state = shop.app.state();
    plan::all(&state).await.unwrap();
    sender::flush(&state, state.stripe.as_ref().unwrap()).await.unwrap();
    eventually("it is noted", || async {
        (shop.app.count("select count(*) from stripe_meters where fault is not null").await == 1).then_some(())
    })
    .await;
    assert_eq!((shop.app.count(SENT).await, shop.app.count(PENDING).await), (0, 1));
    assert_eq!(wrong(&compare(&shop).await)[0].0, "meter_unusable");
    let measured = async || {
        let names = ["billing_stripe_meters_unusable", "billing_stripe_meter_reports_unsent", "billing_stripe_meter_reports_set_aside"];
        let readings = operations::read(&state).await.unwrap();
        names.map(|name| readings.iter().find(|reading| reading.gauge.name == name).unwrap().value)
    };
    assert_eq!(measured().await, [1, 1, 0]);
    mirrors::stop(&state, &Decision::new(&state, "ada".to_owned(), "a test".to_owned(), None), "jobs").await.unwrap();
    assert_eq!(measured().await, [0, 0, 0]);
    assert!(parked::list(&state).await.unwrap()[0].reason.starts_with("stopped: "));
    let attempts = "select attempts::bigint from stripe_meters";
    let before = shop.app.count(attempts).await;
    shop.pass(Duration::from_hours(3));
    report(&shop).await;
    assert_eq!((shop.app.count(attempts).await, wrong(&compare(&shop).await)), (before, vec![]));
    let replay = parked::replay(&state, &Decision::new(&state, "ada".to_owned(), "a test".to_owned(), None), &[], false).await.unwrap();
    assert_eq!(replay, Vec::<String>::new());
}
