//! Wishes whose customer was deleted at Stripe and replaced by another while they were on their way.

use std::time::Duration;

use billing_service::stripe::customers;
use identity::OrganizationId;
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;
use testkit::http::TestClient;

use super::reconcile_desk::with_a_pack;
use super::shop::Shop;

const MONTH: Duration = Duration::from_hours(32 * 24);

/// Invoices that ask somebody for money, or did.
const ASKED: &str = "select count(*) from stripe_invoices where status not in ('draft', 'void')";

/// [B-63] [B-68] The try finds its customer gone, and before it can replace it somebody else has: it asks whether the one that it was sent
/// with is gone, and not whether the new one is.
#[tokio::test]
async fn a_charge_whose_customer_somebody_else_replaced_meanwhile_goes_to_the_new_one_at_once() {
    let desk = with_a_pack().await;
    desk.shop.pay(&desk.shop.plan(&desk.client, "team").await.expect(201));
    desk.shop.settle().await;
    let gone = desk.shop.stripe_customer(desk.organization).await;
    desk.shop.delete_at_stripe(&format!("/v1/customers/{gone}")).await;
    let (state, organization, replaced) = (desk.shop.app.state(), desk.organization, gone.clone());
    desk.bent.meanwhile("/v1/invoices", async move {
        let stripe = state.stripe.as_ref().unwrap();
        assert!(customers::replace_if_gone(&state, stripe, organization, &replaced).await.unwrap());
    });
    desk.shop.pass(MONTH);
    desk.shop.renewed(1).await;
    assert_ne!(desk.shop.stripe_customer(organization).await, gone);
    let done =
        "select count(*) from intents where kind = 'subscription.charge' and sent_at is not null and attempts = 1 and key_number = 1";
    assert_eq!(desk.shop.app.count(done).await, 1, "it waits under a key whose customer is gone");
    assert_eq!(desk.shop.app.count(ASKED).await, 1);
    assert_eq!(desk.shop.app.count("select count(*) from stripe_customers").await, 1);
}

/// What is wanted was sent, and nobody knows what came of it.
async fn tried_once(shop: &Shop) {
    eventually("the first try", || async {
        (shop.app.count("select count(*) from intents where sent_at is null and last_status = 500").await == 1).then_some(())
    })
    .await;
}

/// The organization's customer is deleted at Stripe and another takes its place; the one that is gone.
async fn replaced(shop: &Shop, organization: OrganizationId, client: &TestClient) -> String {
    let gone = shop.stripe_customer(organization).await;
    shop.delete_at_stripe(&format!("/v1/customers/{gone}")).await;
    shop.pack(client, "small").await.expect(201);
    assert_ne!(shop.stripe_customer(organization).await, gone);
    gone
}

/// Tried again until nothing waits, after longer than Stripe remembers a key.
async fn done_late(shop: &Shop) {
    shop.pass(Duration::from_hours(30));
    eventually("it is done", || async {
        shop.send().await;
        let unsent = shop.app.count("select count(*) from intents where sent_at is null").await;
        if unsent > 0 {
            shop.pass(Duration::from_hours(1));
        }
        (unsent == 0).then_some(())
    })
    .await;
    shop.settle().await;
}

/// A renewal whose invoice was closed, and not paid when its customer was replaced: it is taken away, and the one in its place is asked.
pub async fn with_an_open_invoice(shop: &Shop) {
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(FaultKind::ErrorAfterEffect, "POST", "/v1/invoices/")]);
    shop.pass(MONTH);
    tried_once(shop).await;
    replaced(shop, organization, &client).await;
    done_late(shop).await;
}

/// [B-64] [B-65] The customer's card was charged, and nobody knows; then the customer is deleted and another takes its place. A late try
/// finds the invoice with the one that it was sent with. Where nothing was paid, the new one is asked, and it alone.
#[tokio::test]
async fn a_late_try_looks_for_what_an_earlier_one_did_with_a_customer_that_was_replaced_since() {
    let lost = |path: &str| Fault::next(FaultKind::ErrorAfterEffect, "POST", path);
    let passes = Fault::next(FaultKind::Slow, "POST", "/v1/invoices/");
    let cases = [
        ("its invoice was begun", vec![lost("/v1/invoices")], false),
        ("its invoice was closed, and Stripe tried in vain", vec![lost("/v1/invoices/")], false),
        ("its invoice was paid", vec![passes, lost("/v1/invoices/")], true),
    ];
    for (case, faults, is_paid) in cases {
        let shop = Shop::open().await;
        let (organization, client) = shop.customer();
        shop.pay(&shop.plan(&client, "team").await.expect(201));
        shop.settle().await;
        shop.stripe.turn_knobs(|knobs| knobs.faults = faults);
        shop.pass(MONTH);
        tried_once(&shop).await;
        let gone = replaced(&shop, organization, &client).await;
        done_late(&shop).await;
        assert_eq!(
            (shop.app.count(ASKED).await, shop.at_stripe()),
            (1, if is_paid { 20_000 } else { 10_000 }),
            "{case}: somebody was asked twice, or nobody"
        );
        let asked = "select external_id from intents where kind = 'subscription.charge'";
        let asked: String = sqlx::query_scalar(asked).fetch_one(&shop.app.database.owner).await.unwrap();
        let invoice = shop.stripe.object(&asked);
        let whose = if is_paid { gone } else { shop.stripe_customer(organization).await };
        let expected = (if is_paid { "paid" } else { "open" }, whose.as_str());
        assert_eq!((invoice["status"].as_str().unwrap(), invoice["customer"].as_str().unwrap()), expected, "{case}");
        shop.assert_clean().await;
    }
}

/// [B-49] [B-64] The invoice of a top-up cannot be paid by a customer that is gone: it is taken away, and the top-up ends with it. Collected
/// anew as well, it would be bought twice as soon as there is a card: once by it, and once by the next top-up.
#[tokio::test]
async fn a_top_up_ends_with_its_invoice_when_its_customer_is_gone() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(FaultKind::ErrorAfterEffect, "POST", "/v1/invoices/")]);
    let settings = serde_json::json!({"enabled": true, "threshold_micros": 15_000_000, "amount_micros": 20_000_000, "monthly_cap_micros": 500_000_000});
    client.send("PUT".parse().unwrap(), "/v1/auto-top-up", Some(settings.to_string())).await.expect(200);
    billing_service::top_ups::sweep(&shop.app.state()).await.unwrap();
    tried_once(&shop).await;
    replaced(&shop, organization, &client).await;
    done_late(&shop).await;
    let first = "select count(*) from top_ups where state = 'failed' and created_at = (select min(created_at) from top_ups)";
    assert_eq!(shop.app.count(first).await, 1);
    let of_one = "select max(count) from (select count(*) from stripe_invoices where source = 'top_up' group by source_id) as each_of_them";
    assert_eq!(shop.app.count(of_one).await, 1, "a top-up was collected anew");
    assert_eq!(shop.at_stripe(), 1_000, "nobody paid for it");
}

/// [B-64] Who voids an invoice at Stripe does not want it paid: not by the next customer either.
#[tokio::test]
async fn what_somebody_voided_is_not_collected_from_who_takes_the_customers_place() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(FaultKind::ErrorAfterEffect, "POST", "/v1/invoices/")]);
    shop.pass(MONTH);
    tried_once(&shop).await;
    let open = shop.stripe.events_after(0, |kind| kind == "invoice.finalized").0.pop().expect("an invoice");
    shop.dashboard(&format!("/v1/invoices/{}/void", open["data"]["object"]["id"].as_str().unwrap()), &[]).await;
    replaced(&shop, organization, &client).await;
    done_late(&shop).await;
    assert_eq!((shop.app.count(ASKED).await, shop.at_stripe()), (0, 10_000), "only the first month was ever paid");
}
