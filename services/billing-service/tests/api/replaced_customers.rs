//! Wishes whose customer was deleted at Stripe and replaced by another while they were on their way.

use std::time::Duration;

use billing_service::stripe::customers;
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;

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
        eventually("the first try", || async {
            (shop.app.count("select count(*) from intents where sent_at is null and last_status = 500").await == 1).then_some(())
        })
        .await;
        let gone = shop.stripe_customer(organization).await;
        shop.delete_at_stripe(&format!("/v1/customers/{gone}")).await;
        shop.pack(&client, "small").await.expect(201);
        assert_ne!(shop.stripe_customer(organization).await, gone);
        // Longer than Stripe remembers a key.
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
