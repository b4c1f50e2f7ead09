//! Credit that is topped up by itself [B-49].

use std::time::Duration;

use admission::{End, Settlement};
use billing_service::grants::{NewGrant, Source};
use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::{Answer, TestClient};

use super::shop::Shop;

async fn set(client: &TestClient, settings: &Value) -> Answer {
    client.send("PUT".parse().unwrap(), "/v1/auto-top-up", Some(settings.to_string())).await
}

fn settings(cap: i64) -> Value {
    json!({"enabled": true, "threshold_micros": 15_000_000, "amount_micros": 20_000_000, "monthly_cap_micros": cap})
}

/// The sweeper has wanted so many.
async fn wanted(shop: &Shop, count: i64) {
    eventually("it is topped up", || async { (shop.app.count("select count(*) from top_ups").await == count).then_some(()) }).await;
    shop.settle().await;
}

/// [B-49] [B4] [B5]
#[tokio::test]
async fn a_wallet_that_runs_low_is_topped_up_once_and_within_its_cap() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    set(&client, &settings(25_000_000)).await.expect(200);
    let state = shop.app.state();
    let _ = futures::future::join_all((0..64).map(|_| billing_service::top_ups::sweep(&state))).await;
    wanted(&shop, 1).await;
    assert_eq!(shop.app.balance(&client).await, (30_000_000, 0));
    // Low again: one more would be above the cap of the month, and comes in the next one.
    take(&shop, &client, 20_000_000).await;
    for _ in 0..3 {
        shop.pass(Duration::from_hours(2));
        billing_service::top_ups::sweep(&state).await.unwrap();
    }
    assert_eq!(shop.app.count("select count(*) from top_ups").await, 1);
    shop.pass(Duration::from_hours(31 * 24));
    wanted(&shop, 2).await;
    assert_eq!(shop.app.balance(&client).await, (30_000_000, 0));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// What lies in a lease can be spent, and what pays for some models only cannot be counted on.
#[tokio::test]
async fn what_lies_in_a_lease_counts_as_available_and_credit_for_some_models_does_not() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let (state, count) = (shop.app.state(), "select count(*) from top_ups");
    let event = shop.app.used(organization).await;
    let settlement = Settlement { event: &event, price_micros: 150, end: End::Used, counted: &[], traceparent: None };
    shop.app.admissions.settle(&settlement).await.unwrap();
    eventually("the posting", || async { (shop.app.count("select count(*) from usage_events").await == 1).then_some(()) }).await;
    let leased = "select held_micros from leases where state = 'open'";
    assert!(shop.app.count(leased).await > 0);
    let threshold = |micros: i64| {
        let mut body = settings(500_000_000);
        body["threshold_micros"] = micros.into();
        body
    };
    set(&client, &threshold(9_999_850)).await.expect(200);
    let looks = || async { billing_service::top_ups::sweep(&state).await.unwrap() };
    looks().await;
    assert_eq!((shop.app.count(count).await, shop.app.balance(&client).await), (0, (9_999_850, 0)));
    let grant = NewGrant { models: Some(vec!["sim-small".into()]), ..NewGrant::plain(Source::Promotion, "some", 50_000_000) };
    shop.app.give(organization, &grant).await.unwrap();
    set(&client, &threshold(9_999_851)).await.expect(200);
    looks().await;
    wanted(&shop, 1).await;
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// A look adds up two thousand wallets at most: what it costs has a bound, and those after them come with the next.
/// [B-49]
#[tokio::test]
async fn whoever_comes_after_a_page_of_two_thousand_wallets_is_topped_up_too() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    for insert in [
        "insert into wallets (organization_id, currency, created_at) select lpad(n::text, 32, '0')::uuid, 'USD', now() from generate_series(1, 2000) n",
        "insert into auto_top_ups (organization_id, enabled, threshold_micros, amount_micros, monthly_cap_micros, next_at, updated_at)
         select lpad(n::text, 32, '0')::uuid, true, 0, 1, 1, '-infinity', now() from generate_series(1, 2000) n",
    ] {
        sqlx::query(insert).execute(&shop.app.database.owner).await.unwrap();
    }
    set(&client, &settings(25_000_000)).await.expect(200);
    billing_service::top_ups::sweep(&shop.app.state()).await.unwrap();
    wanted(&shop, 1).await;
    assert_eq!(shop.app.balance(&client).await, (30_000_000, 0));
    shop.assert_clean().await;
}

/// [B-78] Cards are charged by it.
#[tokio::test]
async fn who_set_how_credit_is_topped_up_is_logged_with_what_it_was_before() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    set(&client, &settings(25_000_000)).await.expect(200);
    set(&client, &settings(50_000_000)).await.expect(200);
    let logged: Vec<(String, Value, Value, uuid::Uuid)> =
        sqlx::query_as("select actor, before, after, organization_id from audit_log where action = 'auto_top_up.set' order by at, id")
            .fetch_all(&shop.app.database.owner)
            .await
            .unwrap();
    let [(who, nothing, first, _), (_, before, after, whose)] = &logged[..] else { panic!("{logged:?}") };
    assert!(who.starts_with("key_") && nothing.is_null() && before == first, "{logged:?}");
    assert_eq!((&after["monthly_cap_micros"], whose), (&json!(50_000_000), &organization.uuid()));
}

/// Takes credit away.
async fn take(shop: &Shop, client: &TestClient, amount: i64) {
    let (available, _) = shop.app.balance(client).await;
    let payment: String = sqlx::query_scalar("select payment_intent_id from stripe_payments where source = 'top_up'")
        .fetch_one(&shop.app.database.owner)
        .await
        .unwrap();
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", &(amount / 10_000).to_string())]).await;
    shop.settle().await;
    assert_eq!(shop.app.balance(client).await, (available - amount, 0));
}

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

/// [B-49]
#[tokio::test]
async fn settings_that_make_no_sense_are_refused_by_field() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    for (field, value) in [("threshold_micros", -1), ("amount_micros", 999_999), ("amount_micros", 1_000_001), ("monthly_cap_micros", 1)] {
        let mut body = settings(20_000_000);
        body[field] = value.into();
        assert_eq!(set(&client, &body).await.expect(422).json["errors"][0]["field"], field);
    }
    client.get("/v1/auto-top-up").await.expect(404);
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
