//! Credit that is topped up by itself [B-49].

use std::time::Duration;

use admission::{End, Settlement};
use billing_service::grants::{NewGrant, Source};
use serde_json::{Value, json};
use stripe_simulator::{Fault, FaultKind};
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
    set(&client, &settings(25_000_000)).await.expect(200);
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
    shop.pay(&shop.pack(&client, "large").await.expect(201));
    shop.settle().await;
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
    for (field, value) in [
        ("threshold_micros", -1_i64),
        ("amount_micros", 999_999),
        ("amount_micros", 1_000_001),
        ("amount_micros", 1_000_000_000_000),
        ("threshold_micros", 1_000_000_000_000),
        ("monthly_cap_micros", 1),
    ] {
        let mut body = settings(20_000_000);
        body[field] = value.into();
        assert_eq!(set(&client, &body).await.expect(422).json["errors"][0]["field"], field);
    }
    client.get("/v1/auto-top-up").await.expect(404);
}

/// [B-48] [B-49] What support gives back, or the bank asks for, is not taken from the same card a second later.
#[tokio::test]
async fn money_that_goes_back_is_not_bought_again_and_top_ups_are_off_from_then_on() {
    let shop = Shop::open().await;
    for disputed in [false, true] {
        let (organization, client) = shop.customer();
        shop.pay(&shop.pack(&client, "small").await.expect(201));
        shop.settle().await;
        set(&client, &settings(500_000_000)).await.expect(200);
        let bought = format!("select count(*) from top_ups where organization_id = '{}'", organization.uuid());
        let bought: &'static str = bought.leak();
        eventually("it is topped up", || async { (shop.app.count(bought).await == 1).then_some(()) }).await;
        shop.settle().await;
        let payment: String =
            sqlx::query_scalar("select payment_intent_id from stripe_payments where source = 'top_up' and organization_id = $1")
                .bind(organization.uuid())
                .fetch_one(&shop.app.database.owner)
                .await
                .unwrap();
        if disputed {
            shop.stripe.open_dispute(&payment, None, "fraudulent").unwrap();
        } else {
            shop.dashboard("/v1/refunds", &[("payment_intent", &payment)]).await;
        }
        shop.settle().await;
        assert_eq!(client.get("/v1/auto-top-up").await.expect(200).json["enabled"], false);
        shop.pass(Duration::from_hours(2));
        billing_service::top_ups::sweep(&shop.app.state()).await.unwrap();
        shop.settle().await;
        assert_eq!((shop.app.count(bought).await, shop.app.balance(&client).await), (1, (10_000_000, 0)));
        shop.pay(&shop.pack(&client, "small").await.expect(201));
        shop.settle().await;
        set(&client, &settings(500_000_000)).await.expect(200);
    }
    shop.assert_clean().await;
}

/// [B-49] Between the end of a period's credit and the credit of the next one lie three requests to Stripe and an event.
#[tokio::test]
async fn a_plan_that_is_being_renewed_is_waited_for() {
    let catalog = r#"
format: 1
plans:
  month:
    name: Month
    group: main
    prices: {USD: {month: "20.00"}}
    included_credit: {amounts: {USD: "10.00"}, expires: period_end}
  extra:
    name: Extra
    group: extra
    prices: {USD: {month: "5.00"}}
    included_credit: {amounts: {USD: "5.00"}, expires: period_end}
"#;
    let shop = Shop::selling(catalog, |config| config.signup_grant = 0).await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "month").await.expect(201));
    shop.settle().await;
    let mut body = settings(500_000_000);
    body["threshold_micros"] = 5_000_000.into();
    set(&client, &body).await.expect(200);
    let (state, count) = (shop.app.state(), "select count(*) from top_ups");
    let own: &'static str = format!("{count} where organization_id = '{}'", organization.uuid()).leak();
    let end = client.get("/v1/subscription").await.expect(200).json["data"][0]["period"]["end"]
        .as_str()
        .unwrap()
        .parse::<chrono::DateTime<chrono::Utc>>()
        .unwrap();
    shop.pass((end - shop.app.clock.now()).to_std().unwrap());
    for _ in 0..5 {
        billing_service::top_ups::sweep(&state).await.unwrap();
        assert_eq!(shop.app.count(count).await, 0, "the month's credit is over, and the next is not paid yet");
        shop.pass(Duration::from_secs(11));
    }
    shop.renewed(1).await;
    shop.pass(Duration::from_mins(1));
    billing_service::top_ups::sweep(&state).await.unwrap();
    assert_eq!((shop.app.count(count).await, shop.app.balance(&client).await), (0, (10_000_000, 0)));
    // A page for a plan that nobody has paid brings nothing.
    let (_, other) = shop.customer();
    shop.pay(&shop.plan(&other, "month").await.expect(201));
    shop.settle().await;
    shop.plan(&other, "extra").await.expect(201);
    set(&other, &settings(500_000_000)).await.expect(200);
    eventually("it is topped up", || async { (shop.app.count(count).await == 1).then_some(()) }).await;
    shop.settle().await;
    // A renewal that is refused is none to wait for.
    shop.card_fails(organization).await;
    shop.pass(Duration::from_hours(31 * 24));
    shop.renewed(3).await;
    eventually("it is topped up", || async {
        shop.pass(Duration::from_secs(11));
        (shop.app.count(own).await == 1).then_some(())
    })
    .await;
    shop.assert_clean().await;
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

/// [B-49] It would fail each time, until it is off.
#[tokio::test]
async fn it_is_switched_on_by_who_has_something_to_pay_with_and_off_by_everybody() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    let refused = set(&client, &settings(25_000_000)).await.expect(409);
    assert_eq!((refused.string("code").as_str(), &refused.json["errors"][0]["field"]), ("no_payment_method", &json!("enabled")));
    client.get("/v1/auto-top-up").await.expect(404);
    let mut off = settings(25_000_000);
    off["enabled"] = false.into();
    set(&client, &off).await.expect(200);
    // A page that was paid has a customer and a card.
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    // One that is there and not the default one is not charged by invoices.
    let customer = shop.stripe_customer(organization).await;
    let card = shop.stripe.object(&customer)["invoice_settings"]["default_payment_method"].as_str().unwrap().to_owned();
    shop.dashboard(&format!("/v1/customers/{customer}"), &[("invoice_settings[default_payment_method]", "")]).await;
    assert_eq!(set(&client, &settings(25_000_000)).await.expect(409).string("code"), "no_payment_method");
    shop.dashboard(&format!("/v1/customers/{customer}"), &[("invoice_settings[default_payment_method]", &card)]).await;
    set(&client, &settings(25_000_000)).await.expect(200);
    wanted(&shop, 1).await;
    assert_eq!(shop.app.balance(&client).await, (30_000_000, 0));
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
