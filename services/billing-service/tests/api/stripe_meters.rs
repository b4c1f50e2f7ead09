//! Usage that is reported to Stripe's meters: each hour once, whatever happens on the way.

use std::time::Duration;

use billing_service::admin::reconcile::{self as command, Reconcile};
use billing_service::audit::Decision;
use billing_service::operations;
use billing_service::state::AppState;
use billing_service::stripe::meters::mirrors::{self, NewMirror, Source};
use billing_service::stripe::meters::{parked, plan, sender};
use billing_service::stripe::reconcile::{self, Report, Severity};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use identity::{OrganizationId, Scopes};
use serde_json::{Value, json};
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;
use testkit::http::TestClient;

use super::metering::{event, meter, send};
use super::shop::Shop;
use super::wallet::run;

pub(super) const EVENTS: &str = "/v1/billing/meter_events";
pub(super) const PENDING: &str = "select count(*) from stripe_meter_reports where state = 'pending'";
pub(super) const SENT: &str = "select count(*) from stripe_meter_reports where state = 'sent'";

/// A shop in which only the test plans; the service itself sends, as one more replica.
pub(super) async fn open() -> Shop {
    quiet(Shop::open().await).await
}

pub(super) async fn quiet(shop: Shop) -> Shop {
    shop.app.as_owner("update stripe_turns set next_at = '2100-01-01' where name like 'meters%'").await;
    shop
}

/// An organization with a meter of this aggregation.
pub(super) async fn customer(shop: &Shop, aggregation: &str) -> (OrganizationId, TestClient) {
    let (organization, client) = shop.app.organization_with(Scopes::all());
    meter(&client, aggregation, &json!({})).await;
    shop.app.balance(&client).await;
    (organization, client)
}

/// Has the meters of a name, which is that of their aggregation, kept at Stripe as `jobs`, in tenths.
pub(super) async fn mirror(shop: &Shop, aggregation: &str) {
    let line = ["stripe", "meters", "add", "jobs", "--meter", aggregation, "--aggregation", aggregation, "--decimals", "1"];
    run(&shop.app, &[&line[..], &["--actor", "ada", "--reason", "a test"]].concat()).await.unwrap();
}

pub(super) async fn work(client: &TestClient, id: &str, at: DateTime<Utc>, seconds: &str) {
    let answer = send(client, &[event(id, at, &json!({"used": {"seconds": seconds}}))]).await.expect(200);
    assert_eq!(answer.json["results"][0]["status"], "accepted");
}

/// Sends what is due as one replica does, until nothing waits; pauses pass.
pub(super) async fn deliver(shop: &Shop) {
    let state = shop.app.state();
    eventually("all is sent or set aside", || async {
        sender::flush(&state, state.stripe.as_ref().unwrap()).await.unwrap();
        let waits = shop.app.count(PENDING).await;
        if waits > 0 {
            shop.pass(Duration::from_secs(10));
        }
        (waits == 0).then_some(())
    })
    .await;
}

pub(super) async fn report(shop: &Shop) {
    plan::all(&shop.app.state()).await.unwrap();
    deliver(shop).await;
}

pub(super) fn at_stripe(shop: &Shop) -> TestClient {
    TestClient::new(shop.stripe.address).bearer("sk_test_dashboard")
}

/// The id of a meter at Stripe.
pub(super) async fn meter_at_stripe(shop: &Shop, event_name: &str) -> String {
    let meters = at_stripe(shop).get("/v1/billing/meters?limit=100").await.expect(200).json;
    let found = meters["data"].as_array().unwrap().iter().find(|meter| meter["event_name"] == event_name).unwrap();
    found["id"].as_str().unwrap().to_owned()
}

/// What Stripe's meter comes to in each hour of the first two days, by the number of the hour.
pub(super) async fn sums(shop: &Shop, event_name: &str, organization: OrganizationId) -> Vec<(i64, i64)> {
    sums_since(shop, event_name, organization, begin()).await
}

pub(super) async fn sums_since(shop: &Shop, event_name: &str, organization: OrganizationId, since: DateTime<Utc>) -> Vec<(i64, i64)> {
    let (meter, customer) = (meter_at_stripe(shop, event_name).await, shop.stripe_customer(organization).await);
    let start = since.timestamp();
    let path = format!(
        "/v1/billing/meters/{meter}/event_summaries?customer={customer}&start_time={start}&end_time={}&value_grouping_window=hour&limit=100",
        start + 48 * 3600
    );
    let answer = at_stripe(shop).get(&path).await.expect(200).json;
    let sum = |sum: &Value| ((sum["start_time"].as_i64().unwrap() - start) / 3600, sum["aggregated_value"].as_i64().unwrap());
    let mut sums: Vec<_> = answer["data"].as_array().unwrap().iter().map(sum).collect();
    sums.sort_unstable();
    sums
}

/// Stripe loses what was reported of an hour.
pub(super) async fn lose(shop: &Shop, hour: DateTime<Utc>) {
    let lost = sqlx::query_scalar(
        "select identifier from stripe_meter_reports r join stripe_meters m on m.id = r.stripe_meter_id where hour = $1 and event_name = 'jobs'",
    );
    let lost: Vec<String> = lost.bind(hour).fetch_all(&shop.app.database.owner).await.unwrap();
    for identifier in &lost {
        let fields = [("event_name", "jobs"), ("type", "cancel"), ("cancel[identifier]", identifier.as_str())];
        shop.dashboard("/v1/billing/meter_event_adjustments", &fields).await;
    }
}

pub(super) fn begin() -> DateTime<Utc> {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

pub(super) fn hours(hours: i64) -> TimeDelta {
    TimeDelta::hours(hours)
}

pub(super) async fn compare(shop: &Shop) -> Report {
    shop.pass(Duration::from_mins(20));
    let state = shop.app.state();
    reconcile::compare(&state, state.stripe.as_ref().unwrap()).await.unwrap()
}

/// What is not as it should be, by kind and what both sides say.
pub(super) fn wrong(report: &Report) -> Vec<(&str, &str, &str)> {
    let of_meters = report.differences.iter().filter(|one| one.severity != Severity::Info && one.kind.starts_with("meter"));
    of_meters.map(|one| (one.kind, one.ours.as_str(), one.theirs.as_str())).collect()
}

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
    let shop = open().await;
    mirror(&shop, "sum").await;
    let (organization, client) = customer(&shop, "sum").await;
    work(&client, "1", begin(), "7").await;
    shop.pass(Duration::from_mins(75));
    report(&shop).await;
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
    let shop = open().await;
    mirror(&shop, "sum").await;
    let (organization, client) = customer(&shop, "sum").await;
    for hour in 0..6 {
        work(&client, &hour.to_string(), shop.app.clock.now(), "1").await;
        shop.pass(Duration::from_hours(1));
    }
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
    let shop = open().await;
    mirror(&shop, "sum").await;
    let (organization, client) = customer(&shop, "sum").await;
    work(&client, "1", begin(), "7").await;
    shop.pass(Duration::from_mins(75));
    report(&shop).await;
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
    let shop = open().await;
    mirror(&shop, "sum").await;
    let (organization, client) = customer(&shop, "sum").await;
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

/// [B-66] Stripe is away for hours.
#[tokio::test]
async fn while_stripe_is_away_nothing_is_lost_and_afterwards_nothing_counts_twice() {
    let shop = open().await;
    mirror(&shop, "sum").await;
    let (organization, client) = customer(&shop, "sum").await;
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
    run(&shop.app, &["stripe", "meters", "add", "chat", "--chat-usage", "USD", "--actor", "ada", "--reason", "a test"]).await.unwrap();
    let (organization, client) = customer(&shop, "sum").await;
    let used = async |micros: i64| {
        sqlx::query(
            "insert into usage_deltas (organization_id, hour, model, api_key_id, currency, requests, input_tokens, cached_input_tokens, cache_write_tokens,
               cache_write_1h_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, images, price_micros, cost_micros)
             values ($1, $2, 'm', '00000000-0000-0000-0000-000000000000', 'USD', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, $3, 0)",
        )
        .bind(organization.uuid())
        .bind(begin())
        .bind(micros)
        .execute(&shop.app.database.owner)
        .await
        .unwrap();
    };
    work(&client, "1", begin(), "7").await;
    used(500).await;
    shop.pass(Duration::from_hours(10));
    report(&shop).await;
    assert_eq!((sums(&shop, "jobs", organization).await, sums(&shop, "chat", organization).await), (vec![(0, 70)], vec![(0, 500)]));
    work(&client, "2", begin() + hours(1) - TimeDelta::seconds(1), "0.5").await;
    // A request that was given up for dead is replaced by what it really used.
    used(-200).await;
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

/// [B-75] Hours' maxima have no sum that could say that all of them are there.
#[tokio::test]
async fn a_loss_of_any_hour_is_found_where_the_last_value_stands() {
    let shop = open().await;
    mirror(&shop, "max").await;
    let (organization, client) = customer(&shop, "max").await;
    for (hour, seconds) in ["4", "3"].into_iter().enumerate() {
        work(&client, &hour.to_string(), shop.app.clock.now(), seconds).await;
        shop.pass(Duration::from_hours(1));
    }
    shop.pass(Duration::from_hours(1));
    report(&shop).await;
    assert_eq!(sums(&shop, "jobs", organization).await, [(0, 40), (1, 30)]);
    lose(&shop, begin()).await;
    let found = compare(&shop).await;
    assert_eq!(wrong(&found), [("meter_sum", "40", "0")]);
    assert_eq!(found.differences[0].object, "jobs 2030-01-01T00:00:00Z");
}

/// [B-66] [B-40] What requests took beyond the wallet is debt in the ledger, and the same in Stripe's meter.
#[tokio::test]
async fn chat_is_reported_as_what_it_was_sold_for_and_as_what_went_beyond_the_wallet() {
    let shop = quiet(Shop::with(|config| config.signup_grant = 1500).await).await;
    for (name, source) in [("usage", "--chat-usage"), ("overage", "--chat-overage")] {
        run(&shop.app, &["stripe", "meters", "add", name, source, "USD", "--actor", "ada", "--reason", "a test"]).await.unwrap();
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

/// [B-75] [B-78]
#[tokio::test]
async fn a_loss_at_stripe_is_found_by_its_hour_and_a_repair_makes_up_for_it_once() {
    let shop = open().await;
    mirror(&shop, "sum").await;
    let (organization, client) = customer(&shop, "sum").await;
    for hour in 0..3 {
        work(&client, &hour.to_string(), shop.app.clock.now(), "1").await;
        shop.pass(Duration::from_hours(1));
    }
    shop.pass(Duration::from_hours(8));
    report(&shop).await;
    assert_eq!(wrong(&compare(&shop).await), []);
    lose(&shop, begin() + hours(1)).await;
    let report_of_loss = compare(&shop).await;
    assert_eq!(wrong(&report_of_loss), [("meter_sum", "10", "0")]);
    assert_eq!(report_of_loss.differences[0].object, "jobs 2030-01-01T01:00:00Z");
    assert_eq!(report_of_loss.differences[0].organization, Some(organization));
    let state = shop.app.state();
    for _ in 0..2 {
        let repair =
            Reconcile { repair: vec!["all".into()], actor: Some("ada".into()), reason: Some("lost".into()), idempotency_key: None };
        // What it ends with is what is left: the report may still be on its way.
        let _ = command::run(repair, &state).await;
    }
    report(&shop).await;
    assert_eq!(sums(&shop, "jobs", organization).await, [(0, 10), (1, 10), (2, 10)]);
    assert_eq!(wrong(&compare(&shop).await), []);
    assert_eq!(shop.app.count("select count(*) from stripe_meter_reports where repair and value = 10").await, 1);
    // Ours, too: a report that is gone, and a meter that nobody can report to.
    shop.app.as_owner("delete from stripe_meter_reports where hour = '2030-01-01T02:00:00Z'").await;
    let found = compare(&shop).await;
    assert!(wrong(&found).contains(&("meter_behind", "10", "no report")), "{found:#?}");
    report(&shop).await;
    assert_eq!(wrong(&compare(&shop).await), []);
    let meter = meter_at_stripe(&shop, "jobs").await;
    shop.dashboard(&format!("/v1/billing/meters/{meter}/deactivate"), &[]).await;
    assert_eq!(wrong(&compare(&shop).await), [("meter_unusable", "sum", "no active meter")]);
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
