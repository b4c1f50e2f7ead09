//! Credit that comes with a plan though nobody paid for it is given once for a month, however often the plan is ended and begun again.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::{Answer, TestClient};

use super::selling::sell;
use super::shop::Shop;

const MONTH: Duration = Duration::from_hours(32 * 24);

/// What costs nothing and brings credit, and two plans of one price of which one brings more.
const CATALOG: &str = r#"
format: 1
plans:
  free:
    name: Free
    group: main
    grace_days: 7
    prices: {USD: {month: "0.00", year: "0.00"}}
    included_credit: {amounts: {USD: "5.00"}, expires: never}
  less:
    name: Less
    group: main
    grace_days: 7
    prices: {USD: {month: "20.00"}}
    included_credit: {amounts: {USD: "10.00"}, expires: never}
  more:
    name: More
    group: main
    grace_days: 7
    prices: {USD: {month: "20.00"}}
    included_credit: {amounts: {USD: "30.00"}, expires: never}
"#;

async fn open() -> Shop {
    let shop = Shop::open().await;
    sell(&shop.app, CATALOG).await;
    shop
}

async fn change(client: &TestClient, change: Value) -> Answer {
    let living = client.get("/v1/subscription").await.expect(200).json;
    client.post("/v1/subscription/changes", &json!({"subscription_id": living["data"][0]["id"], "change": change})).await
}

/// Begins what costs nothing: it is in force at once.
async fn begin(client: &TestClient, interval: &str) {
    let body = json!({"item": "plan", "plan": "free", "currency": "USD", "interval": interval, "seats": 1,
        "success_url": "https://a.example.com", "cancel_url": "https://a.example.com"});
    let begun = client.post("/v1/checkout-sessions", &body).await.expect(201);
    assert_eq!(begun.json["url"], Value::Null);
    assert_eq!(client.get("/v1/subscription").await.expect(200).json["data"][0]["status"], "active");
}

/// Ends at once what is in force.
async fn end(client: &TestClient) {
    change(client, json!({"kind": "pause"})).await.expect(200);
    change(client, json!({"kind": "cancel"})).await.expect(200);
}

/// All credit that was promised is posted, and this much of it there is, in whole dollars.
async fn has(shop: &Shop, client: &TestClient, dollars: i64) {
    eventually("what was given is posted", || async {
        (shop.app.count("select count(*) from subscription_grants where posted_at is null").await == 0).then_some(())
    })
    .await;
    assert_eq!(shop.app.balance(client).await, (dollars * 1_000_000, 0));
}

/// [B-77] A customer who begins a plan that costs nothing again and again gets its credit once for the month, and again for the next:
/// whether the plan was renewed or begun anew.
#[tokio::test]
async fn a_free_plan_that_is_ended_and_begun_again_gives_its_credit_once_a_month() {
    let shop = open().await;
    let (_, client) = shop.customer();
    begin(&client, "month").await;
    has(&shop, &client, 5).await;
    for _ in 0..3 {
        end(&client).await;
        begin(&client, "month").await;
    }
    has(&shop, &client, 5).await;
    for months in 1..4 {
        shop.pass(MONTH);
        eventually("it is renewed", || async {
            (shop.app.count("select count(*) from subscription_grants").await == 1 + months).then_some(())
        })
        .await;
    }
    has(&shop, &client, 20).await;
    end(&client).await;
    shop.pass(MONTH);
    begin(&client, "month").await;
    has(&shop, &client, 25).await;
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-77] A year's credit is that of its months.
#[tokio::test]
async fn a_free_year_that_is_ended_leaves_nothing_to_be_given_in_its_months() {
    let shop = open().await;
    let (_, client) = shop.customer();
    begin(&client, "year").await;
    has(&shop, &client, 60).await;
    end(&client).await;
    shop.pass(MONTH);
    begin(&client, "year").await;
    has(&shop, &client, 60).await;
    let (_, other) = shop.customer();
    begin(&other, "month").await;
    has(&shop, &other, 5).await;
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-77] Each way up would cost nothing.
#[tokio::test]
async fn to_and_fro_between_plans_of_one_price_gives_the_difference_of_their_credit_once_in_a_period() {
    let shop = open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.plan(&client, "less").await.expect(201));
    shop.settle().await;
    has(&shop, &client, 10).await;
    for plan in ["more", "less", "more", "less", "more"] {
        change(&client, json!({"kind": "plan", "plan": plan, "interval": "month", "seats": 1})).await.expect(200);
    }
    has(&shop, &client, 30).await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    has(&shop, &client, 60).await;
    assert_eq!(shop.at_stripe(), 4_000);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}
