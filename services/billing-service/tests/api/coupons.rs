//! A coupon is redeemed once by an organization.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::{Answer, TestClient};

use super::selling::sell;
use super::shop::Shop;

const MONTH: Duration = Duration::from_hours(32 * 24);

const CATALOG: &str = r#"
format: 1
plans:
  pro:
    name: Pro
    group: main
    grace_days: 7
    prices: {USD: {month: "20.00"}}
    seats: {included: 2, max: 2}
  extra:
    name: Extra
    group: extra
    grace_days: 7
    prices: {USD: {month: "7.00"}}
coupons:
  half: {name: Half, percent_off: 50, duration: once}
  months: {name: Half for months, percent_off: 50, duration: months, months: 2}
"#;

async fn open() -> (Shop, TestClient) {
    let shop = Shop::open().await;
    sell(&shop.app, CATALOG).await;
    let (_, client) = shop.customer();
    (shop, client)
}

/// A page for a plan with a coupon.
async fn buy(client: &TestClient, plan: &str, coupon: &str, seats: u32) -> Answer {
    let body = json!({"item": "plan", "plan": plan, "currency": "USD", "interval": "month", "seats": seats, "coupon": coupon,
        "success_url": "https://a.example.com", "cancel_url": "https://a.example.com"});
    client.post("/v1/checkout-sessions", &body).await
}

async fn preview(client: &TestClient, plan: &str, coupon: &str) -> Answer {
    let body = json!({"change": "start", "plan": plan, "currency": "USD", "interval": "month", "seats": 1, "coupon": coupon});
    client.post("/v1/subscription/preview", &body).await
}

async fn change(client: &TestClient, change: Value) -> Answer {
    let living = client.get("/v1/subscription").await.expect(200).json;
    client.post("/v1/subscription/changes", &json!({"subscription_id": living["data"][0]["id"], "change": change})).await
}

async fn apply(client: &TestClient, coupon: &str) -> Answer {
    change(client, json!({"kind": "coupon", "coupon": coupon})).await
}

/// It is refused because it was redeemed, with the same words whichever way, and the field of the request.
fn assert_redeemed(answer: Answer, field: &str) {
    let body = answer.expect(409).json;
    assert_eq!((&body["code"], &body["title"]), (&json!("coupon_redeemed"), &json!("The coupon is redeemed already")));
    let rule = "must be a coupon that the organization has not redeemed: each is redeemed once";
    assert_eq!(body["errors"], json!([{"field": field, "rule": rule}]));
}

/// [B26] One for a single charge takes something off one, and one for months is not made longer.
#[tokio::test]
async fn a_coupon_is_redeemed_once_whichever_way_it_is_asked_for_again() {
    let (shop, client) = open().await;
    preview(&client, "pro", "half").await.expect(200);
    shop.pay(&buy(&client, "pro", "half", 1).await.expect(201));
    shop.settle().await;
    assert_eq!(shop.at_stripe(), 1_000);
    assert_redeemed(apply(&client, "half").await, "change.coupon");
    assert_redeemed(buy(&client, "extra", "half", 1).await, "coupon");
    assert_redeemed(preview(&client, "extra", "half").await, "coupon");
    apply(&client, "months").await.expect(200);
    shop.pass(Duration::from_hours(24));
    assert_redeemed(apply(&client, "months").await, "change.coupon");
    // Ended and begun again, it is the same customer.
    change(&client, json!({"kind": "pause"})).await.expect(200);
    change(&client, json!({"kind": "cancel"})).await.expect(200);
    assert_redeemed(buy(&client, "pro", "months", 1).await, "coupon");
    let (_, other) = shop.customer();
    buy(&other, "pro", "half", 1).await.expect(201);
    assert_eq!(shop.app.count("select count(*) from subscriptions where plan_group = 'extra'").await, 0, "what is refused begins nothing");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B26] [B-71] A page that was not paid uses nothing up, whether it is replaced or its time is over.
#[tokio::test]
async fn a_coupon_of_a_plan_that_never_began_can_be_redeemed() {
    let (shop, client) = open().await;
    buy(&client, "pro", "half", 1).await.expect(201);
    preview(&client, "pro", "half").await.expect(200);
    assert_redeemed(buy(&client, "extra", "half", 1).await, "coupon");
    buy(&client, "pro", "half", 2).await.expect(201);
    shop.pass(MONTH);
    eventually("it has expired", || async { (client.get("/v1/subscription").await.expect(200).json["data"] == json!([])).then_some(()) })
        .await;
    shop.pay(&buy(&client, "extra", "half", 1).await.expect(201));
    shop.settle().await;
    assert_eq!(shop.at_stripe(), 350);
    assert_redeemed(buy(&client, "pro", "half", 1).await, "coupon");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B26] Of two who redeem at once for two plans one does.
#[tokio::test]
async fn a_coupon_that_is_asked_for_twice_at_once_is_redeemed_once() {
    let (shop, client) = open().await;
    let (one, other) = tokio::join!(buy(&client, "pro", "half", 1), buy(&client, "extra", "half", 1));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409]);
    assert_eq!(shop.app.count("select count(*) from coupon_redemptions").await, 1);
}
