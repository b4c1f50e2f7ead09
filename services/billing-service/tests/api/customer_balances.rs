//! What Stripe keeps as a customer's balance pays invoices before a card does: the ledger has both, each where it belongs.

use std::time::Duration;

use billing_service::stripe::reconcile::{self, Difference};
use identity::OrganizationId;
use serde_json::json;
use testkit::eventually;
use testkit::http::TestClient;

use super::shop::Shop;

const MONTH: Duration = Duration::from_hours(32 * 24);
const YEAR: Duration = Duration::from_hours(367 * 24);

/// Somebody with a plan for a hundred dollars, sixty of them credit, that was paid on its page.
async fn with_a_plan() -> (Shop, OrganizationId, TestClient) {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    (shop, organization, client)
}

/// Stripe's balance of a customer moves by so many cents; its sign is that of what the customer owes.
async fn moved(shop: &Shop, organization: OrganizationId, cents: i64) {
    let path = format!("/v1/customers/{}/balance_transactions", shop.stripe_customer(organization).await);
    shop.dashboard(&path, &[("amount", &cents.to_string()), ("currency", "usd")]).await;
}

async fn balance_at_stripe(shop: &Shop, organization: OrganizationId) -> i64 {
    shop.stripe.object(&shop.stripe_customer(organization).await)["balance"].as_i64().unwrap()
}

/// The plan goes on for another month.
async fn renew(shop: &Shop) {
    shop.pass(MONTH);
    shop.renewed(1).await;
}

/// What else than the balance itself is not the same on both sides.
async fn differences(shop: &Shop) -> Vec<Difference> {
    shop.pass(Duration::from_mins(20));
    let report = reconcile::compare(&shop.state, shop.state.stripe.as_ref().unwrap()).await.unwrap();
    report.differences
}

async fn house(shop: &Shop) -> [i64; 4] {
    let mut house = [0; 4];
    for (balance, account) in house.iter_mut().zip(["stripe_clearing", "customer_balances", "plan_fees", "refunds"]) {
        *balance = shop.app.house(account).await / 10_000;
    }
    house
}

/// [B-47] [B-75]
#[tokio::test]
async fn an_invoice_that_a_balance_pays_in_part_is_sold_whole_and_clearing_has_what_the_card_paid() {
    let (shop, organization, client) = with_a_plan().await;
    moved(&shop, organization, -3_000).await;
    renew(&shop).await;
    assert_eq!((shop.at_stripe(), balance_at_stripe(&shop, organization).await), (17_000, 0));
    assert_eq!(house(&shop).await, [-17_000, -3_000, 8_000, 0]);
    assert_eq!(shop.app.balance(&client).await, (120_000_000, 0));
    assert_eq!(differences(&shop).await, []);
    shop.assert_clean().await;
}

/// [B-47] [B-75]
#[tokio::test]
async fn an_invoice_that_a_balance_pays_whole_is_sold_without_a_payment() {
    let (shop, organization, client) = with_a_plan().await;
    moved(&shop, organization, -12_000).await;
    renew(&shop).await;
    assert_eq!((shop.at_stripe(), balance_at_stripe(&shop, organization).await), (10_000, -2_000));
    assert_eq!(house(&shop).await, [-10_000, -10_000, 8_000, 0]);
    assert_eq!(shop.app.balance(&client).await, (120_000_000, 0));
    assert_eq!(differences(&shop).await, []);
    shop.assert_clean().await;
}

/// [B-48] In two parts, the second of which a bank takes: all that a card paid is back then, and what the balance paid stays sold.
#[tokio::test]
async fn of_a_sale_that_a_balance_paid_in_part_no_more_goes_back_than_the_card_paid() {
    let (shop, organization, client) = with_a_plan().await;
    moved(&shop, organization, -3_000).await;
    renew(&shop).await;
    let payment = shop.payment("payment_intent.succeeded");
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment)]).await;
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (78_000_000, 0), "of sixty dollars of credit seven tenths went");
    assert_eq!(house(&shop).await, [-10_000, -3_000, 5_200, 0]);
    assert_eq!(
        shop.app.count("select count(*) from stripe_payments where reversed_micros = 70000000 and balance_micros = 30000000").await,
        1
    );
    assert_eq!(differences(&shop).await, []);
    shop.assert_clean().await;
}

/// [B-48]
#[tokio::test]
async fn what_was_paid_for_something_that_had_waited_goes_back_last_and_is_less_revenue() {
    let (shop, organization, client) = with_a_plan().await;
    moved(&shop, organization, 30).await;
    renew(&shop).await;
    assert_eq!((shop.at_stripe(), balance_at_stripe(&shop, organization).await), (20_030, 0));
    assert_eq!(house(&shop).await, [-20_030, 30, 8_000, 0]);
    assert_eq!(differences(&shop).await, []);
    let payment = shop.payment("payment_intent.succeeded");
    for (cents, left) in [("10010", [-10_020, 30, 4_000, -10]), ("20", [-10_000, 30, 4_000, -30])] {
        shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", cents)]).await;
        shop.settle().await;
        assert_eq!(house(&shop).await, left);
        assert_eq!(shop.app.balance(&client).await, (60_000_000, 0), "all that was sold is gone with the first");
        assert_eq!(differences(&shop).await, []);
    }
    shop.assert_clean().await;
}

/// [B-48] Won, all returns; lost, all is gone, and the fee with it.
#[tokio::test]
async fn a_dispute_takes_what_the_card_paid_and_a_won_one_returns_it() {
    for (won, balance) in [(true, 120_000_000), (false, 60_000_000)] {
        let (shop, organization, client) = with_a_plan().await;
        moved(&shop, organization, 30).await;
        renew(&shop).await;
        let before = house(&shop).await;
        let dispute = shop.stripe.open_dispute(&shop.payment("payment_intent.succeeded"), None, "fraudulent").unwrap();
        shop.settle().await;
        assert_eq!(shop.app.balance(&client).await, (60_000_000, 0));
        assert_eq!(shop.app.house("disputes").await, 100_300_000);
        shop.stripe.close_dispute(dispute["id"].as_str().unwrap(), won).unwrap();
        shop.settle().await;
        assert_eq!(shop.app.balance(&client).await, (balance, 0));
        if won {
            assert_eq!(house(&shop).await, before);
        } else {
            assert_eq!(house(&shop).await[1..], [30, 4_000, -30]);
        }
        assert_eq!(differences(&shop).await, []);
        shop.app.assert_clean().await;
    }
}

/// [B-70] [B-71] The balance that the invoice had taken is there again, and the card has its part.
#[tokio::test]
async fn a_payment_for_nothing_goes_back_and_so_does_what_the_balance_had_paid_of_it() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    let body = json!({"item": "plan", "plan": "team", "currency": "USD", "interval": "year", "seats": 1,
        "success_url": "https://a.example.com", "cancel_url": "https://a.example.com"});
    shop.pay(&client.post("/v1/checkout-sessions", &body).await.expect(201));
    shop.settle().await;
    moved(&shop, organization, -3_000).await;
    shop.card_fails(organization).await;
    shop.pass(YEAR);
    shop.renewed(1).await;
    shop.pass(Duration::from_hours(15 * 24));
    let living = || async { client.get("/v1/subscription").await.expect(200).json["data"][0].clone() };
    eventually("the grace is over", || async { (living().await["status"] == "unpaid").then_some(()) }).await;
    let invoice = client.get("/v1/invoices").await.expect(200).json["data"][0]["id"].as_str().unwrap().to_owned();
    shop.pays_with(organization, "pm_card_visa").await;
    shop.dashboard(&format!("/v1/invoices/{invoice}/pay"), &[]).await;
    assert_eq!((shop.at_stripe(), balance_at_stripe(&shop, organization).await), (197_000, 0));
    let cancel = json!({"subscription_id": living().await["id"], "change": {"kind": "cancel"}});
    client.post("/v1/subscription/changes", &cancel).await.expect(200);
    shop.settle().await;
    assert_eq!((shop.at_stripe(), balance_at_stripe(&shop, organization).await), (100_000, -3_000));
    assert_eq!(shop.app.count("select count(*) from stripe_payments where not sold and reversed_micros = 970000000").await, 1);
    assert_eq!(shop.app.count("select count(*) from intents where sent_at is null").await, 0);
    assert_eq!(differences(&shop).await, []);
    shop.assert_clean().await;
}
