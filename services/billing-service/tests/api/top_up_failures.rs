//! What becomes of top-ups that are not paid [B-49].

use std::time::Duration;

use serde_json::json;
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;

use super::shop::Shop;
use super::top_ups::{set, settings, wanted};

/// [B-49]
#[tokio::test]
async fn after_three_failures_in_a_row_it_is_off_until_it_is_switched_on_and_nothing_is_collected_behind_ones_back() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    set(&client, &settings(500_000_000)).await.expect(200);
    for failures in 1..=3 {
        wanted(&shop, failures).await;
        assert_eq!(shop.app.count("select count(*) from top_ups where state = 'failed'").await, failures);
        shop.pass(Duration::from_hours(2));
    }
    assert_eq!(client.get("/v1/auto-top-up").await.expect(200).json["enabled"], false);
    shop.pass(Duration::from_hours(100));
    shop.settle().await;
    billing_service::top_ups::sweep(&shop.app.state()).await.unwrap();
    assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (1_000, (10_000_000, 0)));
    let invoices = client.get("/v1/invoices").await.expect(200).json;
    assert!(invoices["data"].as_array().unwrap().iter().all(|invoice| invoice["status"] == "void"), "{invoices}");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-49] A wish that Stripe did not take is not kept for later: the wallet may be full by then, and the customer of another mind.
#[tokio::test]
async fn a_top_up_that_could_not_be_asked_for_is_not_collected_after_it_was_switched_off_or_an_hour_went_by() {
    for is_off in [true, false] {
        let shop = Shop::open().await;
        let (_, client) = shop.customer();
        shop.pay(&shop.pack(&client, "small").await.expect(201));
        shop.settle().await;
        // The invoice is made, and nobody hears of it.
        shop.stripe.turn_knobs(|knobs| {
            knobs.faults = vec![Fault { count: 100, ..Fault::next(FaultKind::ErrorAfterEffect, "POST", "/v1/invoices") }];
        });
        set(&client, &settings(500_000_000)).await.expect(200);
        let tried = "select count(*) from intents where kind = 'top_up.charge' and last_status is not null";
        eventually("it is tried", || async { (shop.app.count(tried).await == 1).then_some(()) }).await;
        shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
        if is_off {
            let mut off = settings(500_000_000);
            off["enabled"] = false.into();
            set(&client, &off).await.expect(200);
        }
        shop.pay(&shop.pack(&client, "large").await.expect(201));
        shop.settle().await;
        shop.pass(if is_off { Duration::from_mins(30) } else { Duration::from_hours(2) });
        eventually("it is given up", || async {
            (shop.app.count("select count(*) from top_ups where state = 'failed'").await == 1).then_some(())
        })
        .await;
        shop.settle().await;
        assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (11_000, (120_000_000, 0)), "{is_off}");
        let failures = "select failures::bigint from auto_top_ups";
        assert_eq!((shop.app.count("select count(*) from top_ups").await, shop.app.count(failures).await), (1, 0), "nobody was asked");
        shop.assert_clean().await;
        shop.assert_reconciled().await;
    }
}

/// [B-49] What Stripe refuses cannot be had by asking for it each hour.
#[tokio::test]
async fn a_top_up_that_stripe_refuses_has_failed_and_after_three_of_them_it_is_off() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.stripe.turn_knobs(|knobs| {
        knobs.faults = vec![Fault { count: 1_000, ..Fault::next(FaultKind::Refused, "POST", "/v1/invoices") }];
    });
    set(&client, &settings(500_000_000)).await.expect(200);
    for failures in 1..=3 {
        let refused = "select count(*) from intents where kind = 'top_up.charge' and refusals > 0 and sent_at is null";
        eventually("it is refused", || async { (shop.app.count(refused).await == 1).then_some(()) }).await;
        shop.pass(Duration::from_hours(2));
        eventually("it has failed", || async {
            // A try that was broken off comes again after a minute.
            shop.pass(Duration::from_secs(61));
            (shop.app.count("select failures::bigint from auto_top_ups").await == failures).then_some(())
        })
        .await;
        shop.pass(Duration::from_hours(2));
    }
    assert_eq!(client.get("/v1/auto-top-up").await.expect(200).json["enabled"], false);
    let over = "select count(*) from top_ups where state = 'failed'";
    assert_eq!((shop.app.count("select count(*) from top_ups").await, shop.app.count(over).await), (3, 3));
    assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (1_000, (10_000_000, 0)));
    shop.assert_clean().await;
}

/// [B-49] Left open, its invoice would be collected from the next card an hour later, however full the wallet is by then.
#[tokio::test]
async fn a_top_up_that_finds_no_card_has_failed_and_is_not_collected_from_the_next_one() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let mut full = settings(500_000_000);
    full["threshold_micros"] = 0.into();
    set(&client, &full).await.expect(200);
    for card in client.get("/v1/payment-methods").await.expect(200).json["data"].as_array().unwrap() {
        shop.dashboard(&format!("/v1/payment_methods/{}/detach", card["id"].as_str().unwrap()), &[]).await;
    }
    shop.app.as_owner("update auto_top_ups set threshold_micros = 15000000").await;
    wanted(&shop, 1).await;
    assert_eq!(shop.app.count("select count(*) from top_ups where state = 'failed'").await, 1);
    let failures = "select failures::bigint from auto_top_ups";
    assert_eq!(shop.app.count(failures).await, 1, "three of them switch it off");
    let invoices = client.get("/v1/invoices").await.expect(200).json;
    assert_eq!(invoices["data"].as_array().unwrap().iter().map(|invoice| &invoice["status"]).collect::<Vec<_>>(), [&json!("void")]);
    // Another card comes, and with it so much credit that nothing is low any more.
    shop.pays_with(organization, "pm_card_visa").await;
    shop.pay(&shop.pack(&client, "large").await.expect(201));
    shop.settle().await;
    for _ in 0..3 {
        shop.pass(Duration::from_hours(2));
        shop.settle().await;
    }
    assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (11_000, (120_000_000, 0)));
    assert_eq!(shop.app.count("select count(*) from top_ups").await, 1);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-49] A debit of a bank account takes days: until it has ended nothing is tried again beside it.
#[tokio::test]
async fn a_top_up_whose_payment_is_on_its_way_is_neither_failed_nor_bought_again() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.pays_with(organization, "pm_usBankAccount_processing").await;
    set(&client, &settings(500_000_000)).await.expect(200);
    wanted(&shop, 1).await;
    for _ in 0..3 {
        shop.pass(Duration::from_hours(24));
        billing_service::top_ups::sweep(&shop.app.state()).await.unwrap();
        shop.settle().await;
    }
    assert_eq!(shop.app.count("select count(*) from top_ups where state = 'wanted'").await, 1);
    assert_eq!(shop.app.count("select count(*) from top_ups").await, 1, "it was bought beside the payment that is on its way");
    shop.stripe.end_processing(&shop.payment("payment_intent.processing"), true).unwrap();
    shop.settle().await;
    assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (3_000, (30_000_000, 0)));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-49] As long as its invoice may yet be paid, a purchase that failed is a part of the month's cap.
#[tokio::test]
async fn what_failed_counts_against_the_cap_until_its_invoice_is_void() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    set(&client, &settings(25_000_000)).await.expect(200);
    wanted(&shop, 1).await;
    shop.app.as_owner("update stripe_invoices set status = 'open'").await;
    shop.pass(Duration::from_hours(2));
    billing_service::top_ups::sweep(&shop.app.state()).await.unwrap();
    assert_eq!(shop.app.count("select count(*) from top_ups").await, 1, "both may be paid, and are more than the cap");
    shop.app.as_owner("update stripe_invoices set status = 'void'").await;
    shop.pass(Duration::from_hours(2));
    wanted(&shop, 2).await;
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-49] A void that is refused is tried again until the invoice is void or paid.
#[tokio::test]
async fn a_void_that_is_refused_is_not_taken_for_done() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    set(&client, &settings(25_000_000)).await.expect(200);
    wanted(&shop, 1).await;
    // One that Stripe does not void as it is: a draft.
    let customer = shop.stripe_customer(organization).await;
    let draft = shop.dashboard("/v1/invoices", &[("customer", &customer)]).await["id"].as_str().unwrap().to_owned();
    sqlx::query("update intents set sent_at = null, attempts = 0, next_attempt_at = '2020-01-01', payload = $1 where kind = 'top_up.void'")
        .bind(json!({"invoice": draft}))
        .execute(&shop.app.database.owner)
        .await
        .unwrap();
    let refused = "select count(*) from intents where kind = 'top_up.void' and sent_at is null and last_status = 400";
    eventually("it is refused", || async { (shop.app.count(refused).await == 1).then_some(()) }).await;
    shop.dashboard("/v1/invoiceitems", &[("customer", &customer), ("invoice", &draft), ("amount", "500"), ("currency", "usd")]).await;
    shop.dashboard(&format!("/v1/invoices/{draft}/finalize"), &[]).await;
    shop.pass(Duration::from_hours(2));
    eventually("it is void", || async { (shop.stripe.object(&draft)["status"] == "void").then_some(()) }).await;
}

/// [B-49] Somebody at Stripe's dashboard voids what nobody has paid yet: that is a failure, and the next one is not held up by it.
#[tokio::test]
async fn a_top_up_whose_invoice_is_voided_at_stripe_makes_place_for_the_next_one() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.pays_with(organization, "pm_usBankAccount_processing").await;
    set(&client, &settings(500_000_000)).await.expect(200);
    wanted(&shop, 1).await;
    let invoice: String = sqlx::query_scalar("select invoice_id from stripe_invoices").fetch_one(&shop.app.database.owner).await.unwrap();
    // What Stripe has after an operator's cancelling the payment and voiding the invoice, with no word of a failure between.
    shop.stripe.end_processing(&shop.payment("payment_intent.processing"), false).unwrap();
    shop.dashboard(&format!("/v1/invoices/{invoice}/void"), &[]).await;
    shop.pays_with(organization, "pm_card_visa").await;
    shop.settle().await;
    assert_eq!(shop.app.count("select count(*) from top_ups where state = 'failed'").await, 1);
    shop.pass(Duration::from_hours(2));
    wanted(&shop, 2).await;
    assert_eq!(shop.app.balance(&client).await, (30_000_000, 0));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-49] A card was refused, and the process died before it had noted that it had asked: that is no new wish, and the hour's pause is kept.
#[tokio::test]
async fn a_top_up_that_failed_and_is_tried_once_more_ends_no_pause_and_begins_none() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    set(&client, &settings(500_000_000)).await.expect(200);
    wanted(&shop, 1).await;
    let pause = "select (extract(epoch from next_at) * 1000)::bigint from auto_top_ups";
    let until = shop.app.count(pause).await;
    shop.pass(Duration::from_mins(10));
    shop.app
        .as_owner("update intents set sent_at = null, last_status = null, next_attempt_at = '2020-01-01' where kind = 'top_up.charge'")
        .await;
    shop.settle().await;
    assert_eq!((shop.app.count(pause).await, shop.app.count("select failures::bigint from auto_top_ups").await), (until, 1));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}
