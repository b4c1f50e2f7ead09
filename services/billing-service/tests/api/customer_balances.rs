//! What Stripe keeps as a customer's balance pays invoices before a card does: the ledger has both, each where it belongs.

use std::time::Duration;

use billing_service::admin::reconcile::{self as command, Reconcile};
use billing_service::stripe::reconcile::{self, Difference};
use identity::OrganizationId;
use serde_json::json;
use testkit::eventually;
use testkit::http::TestClient;

use super::selling::sell;
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

/// Somebody moves Stripe's balance of a customer by so many cents, and decides that it stands. Its sign is that of what the customer owes.
async fn moved(shop: &Shop, organization: OrganizationId, cents: i64) {
    let customer = shop.stripe_customer(organization).await;
    let path = format!("/v1/customers/{customer}/balance_transactions");
    shop.dashboard(&path, &[("amount", &cents.to_string()), ("currency", "usd")]).await;
    shop.settle().await;
    // What has just been invoiced may be what a balance differs by.
    shop.pass(Duration::from_mins(20));
    let (actor, reason) = (Some("ada".into()), Some("a test".into()));
    command::run(Reconcile { repair: vec![customer], actor, reason, ..Reconcile::default() }, &shop.app.state()).await.unwrap();
    assert_eq!(house(shop).await[1], -cents);
}

async fn balance_at_stripe(shop: &Shop, organization: OrganizationId) -> i64 {
    shop.stripe.object(&shop.stripe_customer(organization).await)["balance"].as_i64().unwrap()
}

/// The plan goes on for another month.
async fn renew(shop: &Shop) {
    shop.pass(MONTH);
    shop.renewed(1).await;
}

/// What is not the same on both sides.
async fn differences(shop: &Shop) -> Vec<Difference> {
    shop.pass(Duration::from_mins(20));
    let report = reconcile::compare(&shop.state, shop.state.stripe.as_ref().unwrap(), reconcile::GRACE).await.unwrap();
    report.differences
}

/// Accounts of the house, in cents.
async fn house(shop: &Shop) -> [i64; 4] {
    let mut house = [0; 4];
    for (balance, account) in house.iter_mut().zip(["stripe_clearing", "customer_balances", "plan_fees", "refunds"]) {
        let query = "select coalesce(sum(balance_micros), 0)::bigint from accounts where organization_id is null and kind = $1 and currency = 'USD'";
        let micros: i64 = sqlx::query_scalar(query).bind(account).fetch_one(&shop.app.database.owner).await.unwrap();
        *balance = micros / 10_000;
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
    assert_eq!(house(&shop).await, [-17_000, 0, 8_000, 0]);
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
    assert_eq!(house(&shop).await, [-10_000, 2_000, 8_000, 0]);
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
    assert_eq!(house(&shop).await, [-10_000, 0, 5_200, 0]);
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
    assert_eq!(house(&shop).await, [-20_030, 0, 8_000, 0]);
    assert_eq!(differences(&shop).await, []);
    let payment = shop.payment("payment_intent.succeeded");
    for (cents, left) in [("10010", [-10_020, 0, 4_000, -10]), ("20", [-10_000, 0, 4_000, -30])] {
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
            assert_eq!(house(&shop).await[1..], [0, 4_000, -30]);
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
    // The open invoice has taken the balance, and nothing is sold yet.
    assert_eq!((balance_at_stripe(&shop, organization).await, differences(&shop).await), (0, vec![]));
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

const SEATS: &str = r#"
format: 1
plans:
  seats:
    name: Seats
    group: main
    grace_days: 7
    prices: {USD: {month: "20.00"}}
    seats: {included: 1, prices: {USD: {month: "0.40"}}}
"#;

/// [B-47] [B-75] Below what any card is charged Stripe counts an invoice as paid and asks for it with the next one.
#[tokio::test]
async fn an_invoice_too_small_to_charge_is_sold_at_once_and_paid_with_the_next_one() {
    let shop = Shop::open().await;
    sell(&shop.app, SEATS).await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "seats").await.expect(201));
    shop.settle().await;
    let id = client.get("/v1/subscription").await.expect(200).json["data"][0]["id"].clone();
    client.post("/v1/subscription/changes", &json!({"subscription_id": id, "change": {"kind": "seats", "seats": 2}})).await.expect(200);
    shop.settle().await;
    assert_eq!((shop.at_stripe(), balance_at_stripe(&shop, organization).await), (2_000, 40));
    assert_eq!(house(&shop).await, [-2_000, -40, 2_040, 0]);
    assert_eq!(differences(&shop).await, []);
    shop.pass(MONTH);
    shop.renewed(2).await;
    assert_eq!((shop.at_stripe(), balance_at_stripe(&shop, organization).await), (4_080, 0));
    assert_eq!(house(&shop).await, [-4_080, 0, 4_080, 0]);
    assert_eq!(differences(&shop).await, []);
    shop.assert_clean().await;
}

async fn invoice(client: &TestClient) -> serde_json::Value {
    client.get("/v1/invoices").await.expect(200).json["data"][0].clone()
}

async fn noted(shop: &Shop, invoice: &serde_json::Value, fields: &[(&str, &str)]) -> String {
    let fields = [&[("invoice", invoice["id"].as_str().unwrap())], fields].concat();
    shop.dashboard("/v1/credit_notes", &fields).await["id"].as_str().unwrap().to_owned()
}

/// [B-17] [B-47] [B-48] Its part for the card is a refund like any other, and its part for the balance pays the next invoice.
#[tokio::test]
async fn a_credit_note_stands_with_its_invoice_and_what_it_credits_is_owed_until_the_next_one() {
    let (shop, organization, client) = with_a_plan().await;
    renew(&shop).await;
    assert_eq!(invoice(&client).await["credit_notes"], json!([]));
    let fields = [("amount", "3500"), ("refund_amount", "1000"), ("credit_amount", "2000"), ("out_of_band_amount", "500")];
    let id = noted(&shop, &invoice(&client).await, &fields).await;
    let news = shop.news();
    for event in news.iter().rev().chain(&news) {
        shop.deliver(event).await;
    }
    shop.handled().await;
    shop.settle().await;
    let shown = invoice(&client).await["credit_notes"].clone();
    let told = shop.stripe.object(&id);
    let expected = json!([{"id": id, "number": told["number"], "status": "issued", "reason": null, "memo": null, "amount_micros": 35_000_000,
        "reduced_micros": 0, "balance_micros": 20_000_000, "refunded_micros": 10_000_000, "elsewhere_micros": 5_000_000, "pdf_url": told["pdf"],
        "created_at": shown[0]["created_at"], "voided_at": null}]);
    assert_eq!(shown, expected);
    assert_eq!((balance_at_stripe(&shop, organization).await, house(&shop).await), (-2_000, [-19_000, 2_000, 7_600, -2_000]));
    assert_eq!(differences(&shop).await, []);
    shop.pass(MONTH);
    shop.renewed(2).await;
    assert_eq!((balance_at_stripe(&shop, organization).await, house(&shop).await), (0, [-27_000, 0, 11_600, -2_000]));
    assert_eq!(differences(&shop).await, []);
    let (_, other) = shop.customer();
    assert_eq!(other.get("/v1/invoices").await.expect(200).json["data"], json!([]));
    shop.assert_clean().await;
}

/// [B-17] [B-47]
#[tokio::test]
async fn a_credit_note_before_the_payment_makes_the_invoice_cheaper_unless_it_is_void() {
    let (shop, organization, client) = with_a_plan().await;
    shop.card_fails(organization).await;
    renew(&shop).await;
    let open = invoice(&client).await;
    let id = noted(&shop, &open, &[("amount", "1000")]).await;
    shop.settle().await;
    assert_eq!((&open["status"], &invoice(&client).await["credit_notes"][0]["reduced_micros"]), (&json!("open"), &json!(10_000_000)));
    shop.dashboard(&format!("/v1/credit_notes/{id}/void"), &[]).await;
    noted(&shop, &open, &[("amount", "5500")]).await;
    shop.pays_with(organization, "pm_card_visa").await;
    shop.dashboard(&format!("/v1/invoices/{}/pay", open["id"].as_str().unwrap()), &[]).await;
    shop.settle().await;
    let statuses = invoice(&client).await["credit_notes"].as_array().unwrap().iter().map(|note| note["status"].clone()).collect::<Vec<_>>();
    assert_eq!((statuses.len(), statuses.contains(&json!("void"))), (2, true));
    // Forty-five dollars for sixty of credit: the rest is given away, as with a coupon.
    assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (14_500, (120_000_000, 0)));
    assert_eq!((house(&shop).await, shop.app.house("promotion").await), ([-14_500, 0, 4_000, 0], -15_000_000));
    assert_eq!(differences(&shop).await, []);
    shop.assert_clean().await;
}

/// [B-47] [B-71] There is nothing to post of it, and it is paid.
#[tokio::test]
async fn an_invoice_of_a_plan_that_a_credit_note_brings_to_zero_is_paid_and_the_plan_goes_on() {
    let shop = Shop::open().await;
    sell(&shop.app, SEATS).await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "seats").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    renew(&shop).await;
    let status = || async { client.get("/v1/subscription").await.expect(200).json["data"][0]["status"].clone() };
    assert_eq!(status().await, "past_due");
    noted(&shop, &invoice(&client).await, &[("amount", "2000")]).await;
    shop.settle().await;
    assert_eq!((status().await, &invoice(&client).await["status"]), (json!("active"), &json!("paid")));
    assert_eq!((shop.at_stripe(), house(&shop).await), (2_000, [-2_000, 0, 2_000, 0]));
    assert_eq!(shop.app.count("select count(*) from stripe_events where state = 'parked'").await, 0);
    assert_eq!(differences(&shop).await, []);
    shop.assert_clean().await;
}

/// Somebody with ten dollars whose top-up of twenty was refused by the bank, before we are told so; its invoice.
async fn with_a_top_up_that_failed(shop: &Shop) -> (OrganizationId, TestClient, serde_json::Value) {
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    let settings = json!({"enabled": true, "threshold_micros": 15_000_000, "amount_micros": 20_000_000, "monthly_cap_micros": 500_000_000});
    client.send("PUT".parse().unwrap(), "/v1/auto-top-up", Some(settings.to_string())).await.expect(200);
    let sent = "select count(*) from intents where kind = 'top_up.charge' and sent_at is not null";
    eventually("it is collected", || async { (shop.app.count(sent).await == 1).then_some(()) }).await;
    let id: String = sqlx::query_scalar("select external_id from intents where kind = 'top_up.charge'")
        .fetch_one(&shop.app.database.owner)
        .await
        .unwrap();
    (organization, client, json!({"id": id}))
}

/// [B-47] [B-49] It brings no credit, and the next one is not held up by it.
#[tokio::test]
async fn a_top_up_whose_invoice_a_credit_note_brings_to_zero_is_over_and_makes_place_for_the_next_one() {
    let shop = Shop::open().await;
    let (organization, client, invoice) = with_a_top_up_that_failed(&shop).await;
    noted(&shop, &invoice, &[("amount", "2000")]).await;
    shop.settle().await;
    assert_eq!((shop.app.count("select count(*) from top_ups where state = 'paid'").await, shop.at_stripe()), (1, 1_000));
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
    shop.pays_with(organization, "pm_card_visa").await;
    shop.pass(Duration::from_hours(2));
    eventually("the next one", || async { (shop.app.count("select count(*) from top_ups").await == 2).then_some(()) }).await;
    shop.settle().await;
    assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (3_000, (30_000_000, 0)));
    assert_eq!(differences(&shop).await, []);
    shop.assert_clean().await;
}

/// [B-47] [B-49] Half of the invoice is forgiven, and with it half of its tax.
#[tokio::test]
async fn a_top_up_that_a_credit_note_makes_cheaper_gives_the_credit_that_was_paid_for_without_its_tax() {
    let shop = Shop::with(|config| config.stripe.automatic_tax = true).await;
    shop.stripe.tax_automatically(20);
    let (organization, client, invoice) = with_a_top_up_that_failed(&shop).await;
    let total = shop.stripe.object(invoice["id"].as_str().unwrap())["total"].as_i64().unwrap();
    assert_eq!(total, 2_400);
    noted(&shop, &invoice, &[("amount", &(total / 2).to_string())]).await;
    shop.pays_with(organization, "pm_card_visa").await;
    shop.dashboard(&format!("/v1/invoices/{}/pay", invoice["id"].as_str().unwrap()), &[]).await;
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (20_000_000, 0));
    assert_eq!(differences(&shop).await, []);
    shop.app.assert_clean().await;
}
