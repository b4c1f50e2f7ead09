//! What becomes of charges that nobody pays: changes within a period are taken back, and what somebody at Stripe waives is owed no longer.

use std::time::Duration;

use identity::OrganizationId;
use serde_json::{Value, json};
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;
use testkit::http::TestClient;

use super::bent_stripe::Bent;
use super::shop::Shop;

const MONTH: Duration = Duration::from_hours(32 * 24);
const GRACE: Duration = Duration::from_hours(15 * 24);

async fn subscription(client: &TestClient) -> Value {
    client.get("/v1/subscription").await.expect(200).json["data"][0].clone()
}

async fn is(client: &TestClient, status: &str) -> Value {
    eventually(status, || async { Some(subscription(client).await).filter(|of| of["status"] == status) }).await
}

/// Somebody who paid for a plan, and whose card pays nothing more.
async fn without_money(shop: &Shop) -> (OrganizationId, TestClient) {
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    (organization, client)
}

async fn newest_invoice(client: &TestClient) -> String {
    client.get("/v1/invoices").await.expect(200).json["data"][0]["id"].as_str().unwrap().to_owned()
}

/// [B-71] [B-72] A paid year is not lost over two seats, and nobody pays for what he does not have.
#[tokio::test]
async fn seats_that_nobody_pays_for_are_taken_back_their_invoice_is_void_and_the_paid_plan_goes_on() {
    let shop = Shop::open().await;
    let (organization, client) = without_money(&shop).await;
    let (before, paid) = (subscription(&client).await, shop.at_stripe());
    let wish = json!({"subscription_id": before["id"], "change": {"kind": "seats", "seats": 7}});
    client.post("/v1/subscription/changes", &wish).await.expect(200);
    shop.renewed(1).await;
    assert_eq!(is(&client, "past_due").await["seats"], 7, "they may be paid for yet");
    shop.pass(GRACE);
    let after = is(&client, "active").await;
    assert_eq!((&after["period"], &after["seats"], &after["grace_until"]), (&before["period"], &before["seats"], &json!(null)));
    shop.settle().await;
    let invoice = newest_invoice(&client).await;
    assert_eq!((&shop.stripe.object(&invoice)["status"], subscription(&client).await), (&json!("void"), after));
    shop.pays_with(organization, "pm_card_visa").await;
    shop.pass(MONTH);
    shop.renewed(2).await;
    assert_eq!((is(&client, "active").await["id"].clone(), shop.at_stripe()), (before["id"].clone(), 2 * paid));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-53] [B-71] As it does while a debit is on its way, for days.
#[tokio::test]
async fn a_void_that_stripe_refuses_holds_up_no_later_charge_of_the_subscription() {
    let shop = Shop::open().await;
    let (organization, client) = without_money(&shop).await;
    let (before, paid) = (subscription(&client).await, shop.at_stripe());
    let wish = json!({"subscription_id": before["id"], "change": {"kind": "seats", "seats": 7}});
    client.post("/v1/subscription/changes", &wish).await.expect(200);
    shop.renewed(1).await;
    is(&client, "past_due").await;
    let invoice = newest_invoice(&client).await;
    let void = format!("/v1/invoices/{invoice}/void");
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault { count: 1_000, ..Fault::next(FaultKind::Refused, "POST", &void) }]);
    // Stripe does not try it again either.
    shop.dashboard(&format!("/v1/invoices/{invoice}"), &[("auto_advance", "false")]).await;
    shop.pass(GRACE);
    is(&client, "active").await;
    shop.pays_with(organization, "pm_card_visa").await;
    shop.pass(MONTH);
    shop.renewed(2).await;
    is(&client, "active").await;
    let waiting = "select count(*) from intents where kind = 'subscription.void' and sent_at is null";
    assert_eq!((shop.at_stripe(), shop.app.count(waiting).await), (2 * paid, 1));
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    eventually("it is void", || async {
        shop.pass(Duration::from_mins(80));
        shop.send().await;
        (shop.stripe.object(&invoice)["status"] == "void").then_some(())
    })
    .await;
    shop.settle().await;
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-48] [B-72] It would be given back twice, once to the card and once off the price of the year.
#[tokio::test]
async fn a_month_whose_money_went_back_takes_nothing_off_a_year_and_a_renewal_likewise() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    let cost = async || {
        let id = subscription(&client).await["id"].clone();
        let wish = json!({"change": "change_plan", "subscription_id": id, "plan": "team", "interval": "year", "seats": 1});
        client.post("/v1/subscription/preview", &wish).await.expect(200).json["now"]["total_micros"].as_i64().unwrap()
    };
    let whole = 1_000_000_000;
    assert_eq!(cost().await, whole - 100_000_000);
    let payment = shop.payment("payment_intent.succeeded");
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", "2500")]).await;
    shop.settle().await;
    assert_eq!(cost().await, whole - 75_000_000);
    shop.pass(MONTH);
    shop.renewed(1).await;
    assert!(cost().await < whole - 75_000_000, "the new month was paid");
    let payment = shop.payment("payment_intent.succeeded");
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment)]).await;
    shop.settle().await;
    assert_eq!((cost().await, subscription(&client).await["status"].clone()), (whole, json!("active")));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-71] Somebody at Stripe's dashboard says that the customer need not pay.
#[tokio::test]
async fn a_renewal_whose_invoice_is_voided_at_stripe_is_owed_no_longer_and_brings_no_credit() {
    let shop = Shop::open().await;
    let (_, client) = without_money(&shop).await;
    let paid = shop.at_stripe();
    shop.pass(MONTH);
    shop.renewed(1).await;
    is(&client, "past_due").await;
    let balance = shop.app.balance(&client).await;
    let invoice = newest_invoice(&client).await;
    shop.dashboard(&format!("/v1/invoices/{invoice}/void"), &[]).await;
    shop.settle().await;
    let period = is(&client, "active").await["period"].clone();
    shop.pass(GRACE);
    shop.settle().await;
    assert_eq!(is(&client, "active").await["period"], period);
    assert_eq!((shop.app.balance(&client).await, shop.at_stripe()), (balance, paid));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-71] An operator mends an address, and Stripe voids the invoice for the new version of it; or one of two that were made by hand goes.
#[tokio::test]
async fn a_renewal_of_which_another_invoice_is_there_is_not_waived_by_the_void_of_one() {
    let bent = Bent::default();
    let before = bent.clone();
    let shop = Shop::with(|config| config.stripe.api_base = before.before(config.stripe.api_base.clone())).await;
    let (organization, client) = without_money(&shop).await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    is(&client, "past_due").await;
    let first = newest_invoice(&client).await;
    let (customer, charge) = (shop.stripe_customer(organization).await, shop.stripe.object(&first)["metadata"]["charge_id"].clone());
    let fields = [("customer", customer.as_str()), ("auto_advance", "false"), ("metadata[charge_id]", charge.as_str().unwrap())];
    let second = shop.dashboard("/v1/invoices", &fields).await["id"].as_str().unwrap().to_owned();
    let item = [("customer", customer.as_str()), ("invoice", &second), ("amount", "10000"), ("currency", "usd")];
    shop.dashboard("/v1/invoiceitems", &item).await;
    shop.dashboard(&format!("/v1/invoices/{second}/finalize"), &[]).await;
    shop.settle().await;
    let void = async |invoice: &str| {
        shop.dashboard(&format!("/v1/invoices/{invoice}/void"), &[]).await;
        shop.settle().await;
    };
    void(&first).await;
    is(&client, "past_due").await;
    bent.say(&second, "/latest_revision", "in_that_is_not_told_of_yet");
    void(&second).await;
    is(&client, "past_due").await;
    // What is said at last: nothing takes its place.
    bent.straighten();
    shop.dashboard(&format!("/v1/invoices/{second}"), &[("metadata[note]", "waived")]).await;
    shop.settle().await;
    is(&client, "active").await;
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}
