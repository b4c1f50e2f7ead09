//! Usage that one side has and the other one does not: it is told, and made up for where that can be.

use std::time::Duration;

use billing_service::admin::reconcile::{self as command, Reconcile};
use billing_service::stripe::meters::plan;
use chassis::config::Millis;
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;

use super::shop::Shop;
use super::stripe_meter_desk::{
    PENDING, SENT, at_stripe, begin, compare, first_hour, flush, hourly, hours, keep, lose, meter_at_stripe, metered, quiet, report, sums,
    used, work, wrong,
};
use super::wallet::run;

/// [B-75] Hours' maxima have no sum that could say that all of them are there.
#[tokio::test]
async fn a_loss_of_any_hour_is_found_where_the_last_value_stands() {
    let (shop, organization, client) = metered("max").await;
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

/// [B-75] [B-78]
#[tokio::test]
async fn a_loss_at_stripe_is_found_by_its_hour_and_a_repair_makes_up_for_it_once() {
    let (shop, organization, client) = metered("sum").await;
    hourly(&shop, &client, 3).await;
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
            Reconcile { repair: vec!["all".into()], actor: Some("ada".into()), reason: Some("lost".into()), ..Reconcile::default() };
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

/// [B-66] [B-75] Who deletes a customer does not end what is reported of the organization: another one is made for it. What went to the
/// one that is gone is told.
#[tokio::test]
async fn a_customer_that_is_gone_is_made_anew_and_what_was_sent_for_it_is_told() {
    let (shop, organization, client) = metered("sum").await;
    first_hour(&shop, &client, "1").await;
    let deleted = shop.stripe_customer(organization).await;
    shop.delete_at_stripe(&format!("/v1/customers/{deleted}")).await;
    work(&client, "2", shop.app.clock.now(), "2").await;
    shop.pass(Duration::from_hours(1));
    report(&shop).await;
    assert_ne!(shop.stripe_customer(organization).await, deleted);
    assert_eq!((sums(&shop, "jobs", organization).await, shop.app.count(SENT).await), (vec![(1, 20)], 2));
    let found = compare(&shop).await;
    assert_eq!(wrong(&found), [("meter_sum", "10", "no such customer")]);
    assert_eq!(found.differences.iter().find(|one| one.kind == "meter_sum").unwrap().object, format!("jobs {deleted}"));
}

/// [B-66] A database that was restored does not know what was reported since its backup.
#[tokio::test]
async fn what_was_reported_after_the_backup_that_was_restored_does_not_count_again() {
    let (shop, organization, client) = metered("sum").await;
    first_hour(&shop, &client, "7").await;
    work(&client, "2", begin(), "1").await;
    report(&shop).await;
    shop.pass(Duration::from_hours(30));
    shop.app.as_owner("delete from stripe_meter_reports").await;
    // The first look fails, and is no try.
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(FaultKind::ErrorBeforeEffect, "GET", "/v1/billing/meters/")]);
    report(&shop).await;
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    assert_eq!((sums(&shop, "jobs", organization).await, shop.app.count(SENT).await), (vec![(0, 80)], 1));
    work(&client, "3", begin(), "0.5").await;
    shop.pass(Duration::from_mins(20));
    report(&shop).await;
    assert_eq!((sums(&shop, "jobs", organization).await, shop.app.count(SENT).await), (vec![(0, 85)], 2));
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-66] Under the key of the first try its answer, the meter that is gone, would be played back for a day.
#[tokio::test]
async fn a_meter_that_is_deactivated_is_made_anew_on_the_same_day() {
    let (shop, organization, client) = metered("sum").await;
    first_hour(&shop, &client, "1").await;
    let first = meter_at_stripe(&shop, "jobs").await;
    shop.dashboard(&format!("/v1/billing/meters/{first}/deactivate"), &[]).await;
    work(&client, "2", shop.app.clock.now(), "2").await;
    shop.pass(Duration::from_hours(1));
    plan::all(&shop.app.state()).await.unwrap();
    eventually("it is made anew", || async {
        flush(&shop).await;
        shop.pass(Duration::from_mins(10));
        (shop.app.count(PENDING).await == 0).then_some(())
    })
    .await;
    let meters = at_stripe(&shop).get("/v1/billing/meters?status=active").await.expect(200).json;
    let second = meters["data"][0]["id"].as_str().unwrap();
    assert_ne!(second, first);
    let (customer, start) = (shop.stripe_customer(organization).await, begin().timestamp());
    let path = format!("/v1/billing/meters/{second}/event_summaries?customer={customer}&start_time={start}&end_time={}", start + 7200);
    assert_eq!(at_stripe(&shop).get(&path).await.expect(200).json["data"][0]["aggregated_value"], 20);
}

/// [B-66] [B-59] What came when Stripe took it no longer is told; and so that this does not happen, months must close before.
#[tokio::test]
async fn what_came_too_late_for_stripe_is_told() {
    let shop = quiet(Shop::with(|config| config.metering.close_after = Millis(Duration::from_hours(4 * 24))).await).await;
    keep(&shop, "chat", &["--chat-usage", "USD"]).await;
    let by = ["--actor", "ada", "--reason", "a test"];
    let refused = run(&shop.app, &[&["stripe", "meters", "add", "jobs", "--meter", "sum"][..], &by].concat()).await.unwrap_err();
    assert!(format!("{refused:#}").contains("BILLING_METERING_CLOSE_AFTER_MS"), "{refused:#}");
    let (organization, client) = shop.customer();
    shop.app.balance(&client).await;
    shop.pass(Duration::from_hours(40 * 24));
    used(&shop, organization, begin(), 500).await;
    report(&shop).await;
    assert_eq!(shop.app.count("select count(*) from stripe_meter_reports").await, 0);
    assert_eq!(wrong(&compare(&shop).await), [("meter_behind", "500", "no report")]);
}
