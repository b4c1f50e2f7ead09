//! What Stripe refuses to do for us, again and again.

use std::time::Duration;

use billing_service::operations::status;
use billing_service::subscriptions::command::Command;
use billing_service::subscriptions::{SubscriptionId, store};
use identity::OrganizationId;
use serde_json::json;
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;

use super::selling::sell;
use super::shop::{CATALOG, Shop};
use super::subscriptions::does;

const PARKED: &str = "select count(*) from intents where parked_at is not null";
const UNSENT: &str = "select count(*) from intents where sent_at is null";
const MONTH: Duration = Duration::from_hours(32 * 24);
/// Longer than the longest pause.
const PAUSE: Duration = Duration::from_mins(80);

/// From now on what is posted there is refused.
fn refuse(shop: &Shop, path: &str) {
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault { count: 1_000, ..Fault::next(FaultKind::Refused, "POST", path) }]);
}

/// Invoices that were begun at Stripe and can be collected yet.
fn drafts(shop: &Shop) -> usize {
    let events = shop.stripe.events();
    let made = events.iter().filter(|event| event["type"] == "invoice.created").filter_map(|event| event["data"]["object"]["id"].as_str());
    made.filter(|id| shop.stripe.object(id)["status"] == "draft").count()
}

/// Nobody waits for the charge of the subscription any more.
async fn give_up(shop: &Shop, organization: OrganizationId, id: SubscriptionId) {
    let open = store::find(&mut shop.app.database.pool.acquire().await.unwrap(), organization, id).await.unwrap().open;
    let failed = Command::PaymentFailed { period_start: open[0].period_start, reason: open[0].reason.clone() };
    does(&shop.app, organization, id, &failed).await.unwrap();
    does(&shop.app, organization, id, &Command::CancelNow).await.unwrap();
}

async fn tried_until(shop: &Shop, what: &str, query: &'static str) {
    eventually(what, || async {
        shop.pass(PAUSE);
        shop.send().await;
        (shop.app.count(query).await > 0).then_some(())
    })
    .await;
}

/// [B-22] [B-53] What waits behind it is about the same thing, and is not sent before it.
#[tokio::test]
async fn a_wish_that_is_refused_for_a_day_is_set_aside_and_brought_back_with_what_waits_behind_it() {
    let shop = Shop::open().await;
    shop.settle().await;
    let counted = shop.app.metric("billing_stripe_intents_parked_total").await;
    refuse(&shop, "/v1/products/catalog_plan_team");
    for name in ["Crew", "Gang"] {
        sell(&shop.app, &CATALOG.replace("Team", name)).await;
    }
    tried_until(&shop, "it is set aside", PARKED).await;
    assert_eq!(shop.app.count("select refusals::bigint from intents where parked_at is not null").await, 26);
    assert!(shop.app.metric("billing_stripe_intents_parked_total").await > counted, "nobody was told");
    let told = status(&shop.state).await.unwrap();
    assert!(told.lines.iter().any(|line| line.metric == "billing_intents_set_aside" && line.value == 1 && line.beyond), "{told:?}");
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    for _ in 0..3 {
        shop.pass(PAUSE);
        shop.send().await;
    }
    assert_eq!(
        (shop.app.count(UNSENT).await, shop.stripe.object("catalog_plan_team")["name"].clone()),
        (2, json!("Team")),
        "nobody has mended it"
    );

    let from = shop.app.clock.now() - Duration::from_hours(48);
    let time = ["--from", &from.to_rfc3339(), "--to", &shop.app.clock.now().to_rfc3339()].map(str::to_owned);
    let replay = ["stripe", "replay", "--intents", &time[0], &time[1], &time[2], &time[3], "--actor", "grace", "--reason", "mended"];
    super::wallet::run(&shop.app, &replay).await.unwrap();
    let none = super::wallet::run(&shop.app, &replay).await.unwrap_err();
    assert!(none.to_string().contains("no such intent was set aside"), "{none}");
    shop.settle().await;
    assert_eq!((shop.app.count(UNSENT).await, shop.stripe.object("catalog_plan_team")["name"].clone()), (0, json!("Gang")));
    assert_eq!(shop.app.count("select count(*) from audit_log where action = 'stripe.replay_intents'").await, 1);
}

/// [B-53] An invoice whose payment is on its way cannot be voided until that has ended, which takes longer than a day.
#[tokio::test]
async fn what_must_not_be_paid_is_voided_however_long_stripe_refuses_it() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let customer = shop.stripe_customer(organization).await;
    let invoice = shop.dashboard("/v1/invoices", &[("customer", &customer), ("auto_advance", "false")]).await;
    let invoice = invoice["id"].as_str().unwrap();
    let item = [("customer", customer.as_str()), ("invoice", invoice), ("currency", "usd"), ("amount", "1000")];
    shop.dashboard("/v1/invoiceitems", &item).await;
    shop.dashboard(&format!("/v1/invoices/{invoice}/finalize"), &[("auto_advance", "false")]).await;
    refuse(&shop, &format!("/v1/invoices/{invoice}/void"));
    sqlx::query(
        "insert into intents (id, kind, subject, organization_id, idempotency_key, payload, next_attempt_at, created_at)
         values (gen_random_uuid(), 'top_up.void', $1, $2, 'void', jsonb_build_object('invoice', $1), $3, $3)",
    )
    .bind(invoice)
    .bind(organization.uuid())
    .bind(shop.app.clock.now())
    .execute(&shop.app.database.owner)
    .await
    .unwrap();
    tried_until(&shop, "it is tried for more than a day", "select count(*) from intents where sent_at is null and attempts > 30").await;
    assert_eq!(shop.app.count(PARKED).await, 0);
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    tried_until(&shop, "it is void", "select count(*) from intents where kind = 'top_up.void' and sent_at is not null").await;
    assert_eq!(shop.stripe.object(invoice)["status"], "void");
}

/// [B-53] As one whose address was not known, and who has told it since.
#[tokio::test]
async fn a_charge_that_was_set_aside_is_tried_again_when_its_customer_has_changed_something_at_stripe() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    refuse(&shop, "/v1/invoices");
    shop.pass(MONTH);
    tried_until(&shop, "it is set aside", PARKED).await;
    let status = async || client.get("/v1/subscription").await.expect(200).json["data"][0]["status"].clone();
    assert_eq!(status().await, "past_due", "nobody has it for nothing");
    let customer = format!("/v1/customers/{}", shop.stripe_customer(organization).await);
    shop.dashboard(&customer, &[("name", "Ada")]).await;
    shop.settle().await;
    tried_until(&shop, "it was not what was missing", "select count(*) from intents where parked_at is not null and refusals = 27").await;
    // That Stripe fails meanwhile is no refusal.
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(FaultKind::ErrorBeforeEffect, "POST", "/v1/invoices")]);
    shop.dashboard(&customer, &[("address[country]", "DE")]).await;
    shop.settle().await;
    tried_until(&shop, "it is collected", "select count(*) from intents where kind = 'subscription.charge' and sent_at is not null").await;
    shop.settle().await;
    assert_eq!((shop.app.count(UNSENT).await, shop.at_stripe(), status().await), (0, 20_000, json!("active")));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-53] What its tries left at Stripe is taken away, nobody is charged for what nobody waits for, and it does not come back.
#[tokio::test]
async fn a_charge_that_is_given_up_before_it_was_sent_is_not_sent_any_more() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    let before = shop.at_stripe();
    refuse(&shop, "/v1/invoiceitems");
    shop.pass(MONTH);
    tried_until(&shop, "it is set aside", PARKED).await;
    // What was begun is in our books as well by then.
    shop.settle().await;
    assert_eq!((drafts(&shop), shop.app.count("select count(*) from stripe_invoices where status = 'draft'").await), (1, 1));

    let subscription = client.get("/v1/subscription").await.expect(200).json["data"][0].clone();
    let id: SubscriptionId = subscription["id"].as_str().unwrap().parse().unwrap();
    give_up(&shop, organization, id).await;
    shop.send().await;
    let waits = "select count(*) from intents where kind = 'subscription.void' and attempts = 0 and sent_at is null";
    assert_eq!((shop.app.count(waits).await, shop.app.count(UNSENT).await), (1, 1), "a try may be under way that makes an invoice yet");
    shop.dashboard(&format!("/v1/customers/{}", shop.stripe_customer(organization).await), &[("name", "Ada")]).await;
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    for _ in 0..3 {
        shop.pass(PAUSE);
        shop.settle().await;
    }
    assert_eq!((shop.app.count(UNSENT).await, shop.at_stripe(), drafts(&shop)), (0, before, 0));
    shop.assert_reconciled().await;
}

/// [B-53] Its invoice, which no card pays, is there only after what was to take it away has found nothing: that looks again.
#[tokio::test]
async fn a_try_that_ends_after_its_charge_was_given_up_leaves_no_invoice_that_can_be_paid() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault { delay_ms: 3_000, ..Fault::next(FaultKind::Slow, "POST", "/v1/invoices") }]);
    shop.pass(MONTH);
    let under_way = "select count(*) from intents where kind = 'subscription.charge' and attempts = 1 and sent_at is null";
    eventually("it is on its way", || async { (shop.app.count(under_way).await == 1).then_some(()) }).await;
    let id = client.get("/v1/subscription").await.expect(200).json["data"][0]["id"].as_str().unwrap().parse().unwrap();
    give_up(&shop, organization, id).await;
    shop.pass(Duration::from_mins(1));
    shop.send().await;
    let made = "select external_id from intents where kind = 'subscription.charge' and external_id is not null";
    let invoice = eventually("its invoice", || async {
        sqlx::query_scalar::<_, String>(made).fetch_optional(&shop.app.database.owner).await.unwrap()
    })
    .await;
    shop.send().await;
    // Or the service itself is at it.
    eventually("nothing is left to do", || async { (shop.app.count(UNSENT).await == 0).then_some(()) }).await;
    assert_eq!(shop.stripe.object(&invoice)["status"], "void");
    shop.settle().await;
    shop.assert_reconciled().await;
}

/// [B-65] What Stripe refuses to show us says nothing about the wish.
#[tokio::test]
async fn a_look_that_is_refused_is_no_refusal_of_what_is_looked_for() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    let fault = |kind, method| Fault { count: 1_000, ..Fault::next(kind, method, "/v1/invoices") };
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![fault(FaultKind::ErrorBeforeEffect, "POST"), fault(FaultKind::Refused, "GET")]);
    shop.pass(MONTH);
    tried_until(&shop, "it is looked for", "select count(*) from intents where sent_at is null and attempts > 35").await;
    assert_eq!(shop.app.count("select coalesce(sum(refusals), 0)::bigint from intents where sent_at is null").await, 0);
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    tried_until(&shop, "it is collected", "select count(*) from intents where kind = 'subscription.charge' and sent_at is not null").await;
    shop.settle().await;
    shop.assert_reconciled().await;
}
