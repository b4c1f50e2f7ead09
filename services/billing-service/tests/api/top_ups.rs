//! Credit that is topped up by itself [B-49].

use std::time::Duration;

use billing_service::grants::{NewGrant, Source};
use chassis::config::Millis;
use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::{Answer, TestClient};

use super::shop::Shop;

pub async fn set(client: &TestClient, settings: &Value) -> Answer {
    client.send("PUT".parse().unwrap(), "/v1/auto-top-up", Some(settings.to_string())).await
}

pub fn settings(cap: i64) -> Value {
    json!({"enabled": true, "threshold_micros": 15_000_000, "amount_micros": 20_000_000, "monthly_cap_micros": cap})
}

/// The sweeper has wanted so many.
pub async fn wanted(shop: &Shop, count: i64) {
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
    shop.app.settled(&event, 150).await;
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

/// [B-42] [B-49] The sweeper that would give it back is dead.
#[tokio::test]
async fn what_dead_processes_hold_and_what_drained_leases_do_is_given_back_before_anything_is_bought() {
    let shop = Shop::with(|config| config.sweep = Millis(Duration::from_hours(1))).await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.app.hold(organization, 0, 750_000).await;
    shop.app.used(organization).await;
    shop.app.as_owner("update leases set state = 'lost', drained_at = deadline").await;
    assert_eq!(shop.app.balance(&client).await, (900_000, 9_100_000));
    shop.pass(Duration::from_mins(10));
    let mut wanted = settings(500_000_000);
    wanted["threshold_micros"] = 9_950_000.into();
    set(&client, &wanted).await.expect(200);
    billing_service::top_ups::sweep(&shop.app.state()).await.unwrap();
    let given_back = || async { (shop.app.balance(&client).await == (10_000_000, 0)).then_some(()) };
    eventually("it is given back", given_back).await;
    assert_eq!(shop.app.count("select count(*) from top_ups").await, 0);
    shop.assert_clean().await;
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
