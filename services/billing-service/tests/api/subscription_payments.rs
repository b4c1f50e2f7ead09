//! Subscriptions that are paid: by a page first, by the card afterwards.

use std::time::Duration;

use identity::OrganizationId;
use serde_json::json;
use testkit::eventually;
use testkit::http::TestClient;

use super::shop::Shop;

const MONTH: Duration = Duration::from_hours(32 * 24);
const YEAR: Duration = Duration::from_hours(367 * 24);

async fn status(client: &TestClient) -> String {
    let living = client.get("/v1/subscription").await.expect(200).json;
    living["data"][0]["status"].as_str().unwrap_or("none").to_owned()
}

async fn id(client: &TestClient) -> String {
    client.get("/v1/subscription").await.expect(200).json["data"][0]["id"].as_str().unwrap().to_owned()
}

async fn change(client: &TestClient, change: serde_json::Value) -> testkit::http::Answer {
    client.post("/v1/subscription/changes", &json!({"subscription_id": id(client).await, "change": change})).await
}

/// [B-47] [B-77]
#[tokio::test]
async fn a_plan_begins_with_its_page_and_is_renewed_by_the_card_once_a_period() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let page = shop.plan(&client, "team").await.expect(201);
    assert_eq!((status(&client).await.as_str(), page.json["amount_micros"].as_i64()), ("incomplete", Some(100_000_000)));
    shop.pay(&page);
    shop.settle().await;
    assert_eq!((status(&client).await.as_str(), shop.app.balance(&client).await), ("active", (60_000_000, 0)));
    assert_eq!(shop.app.house("plan_fees").await, 40_000_000);
    shop.pass(MONTH);
    shop.renewed(1).await;
    assert_eq!((status(&client).await.as_str(), shop.app.balance(&client).await), ("active", (120_000_000, 0)));
    let invoices = client.get("/v1/invoices").await.expect(200).json;
    let invoice = &invoices["data"][0];
    assert_eq!(
        (invoices["data"].as_array().unwrap().len(), &invoice["status"], &invoice["paid_micros"]),
        (1, &json!("paid"), &json!(100_000_000))
    );
    assert_eq!(invoice["lines"][0]["amount_micros"], 100_000_000);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-71] [B22]
#[tokio::test]
async fn a_card_that_fails_makes_the_plan_past_due_and_the_payment_of_its_invoice_mends_it() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    assert_eq!(status(&client).await, "active");
    shop.card_fails(organization).await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    assert_eq!((status(&client).await.as_str(), shop.app.balance(&client).await), ("past_due", (60_000_000, 0)));
    let customer = shop.stripe_customer(organization).await;
    let card = shop.dashboard("/v1/payment_methods/pm_card_visa/attach", &[("customer", &customer)]).await;
    let open = client.get("/v1/invoices").await.expect(200).json["data"][0]["id"].as_str().unwrap().to_owned();
    shop.dashboard(&format!("/v1/invoices/{open}/pay"), &[("payment_method", card["id"].as_str().unwrap())]).await;
    shop.settle().await;
    assert_eq!((status(&client).await.as_str(), shop.app.balance(&client).await), ("active", (120_000_000, 0)));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-71] [B-77] The bank wants to know that it is the customer, who is not there when the calendar charges; the invoice has a page for that.
#[tokio::test]
async fn a_renewal_whose_bank_asks_for_its_customer_is_paid_on_the_invoices_page() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.pays_with(organization, "pm_card_threeDSecure2Required").await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    assert_eq!((status(&client).await.as_str(), shop.app.balance(&client).await), ("past_due", (60_000_000, 0)));
    let invoice = client.get("/v1/invoices").await.expect(200).json["data"][0].clone();
    assert_eq!(invoice["status"], "open");
    let page = invoice["hosted_url"].as_str().unwrap().to_owned();
    assert_eq!(page, format!("{}/invoices/{}", shop.stripe.url, invoice["id"].as_str().unwrap()));
    // Somebody else's bank, who does not answer; then the customer, who does.
    let refused = shop.press(&page, "refuse").await;
    assert!(refused.text.contains("not confirmed") && status(&client).await == "past_due", "{}", refused.text);
    assert!(shop.press(&page, "authenticate").await.text.contains("Complete authentication"));
    shop.press(&page, "confirm").await.expect(303);
    shop.settle().await;
    assert_eq!((status(&client).await.as_str(), shop.app.balance(&client).await), ("active", (120_000_000, 0)));
    assert_eq!(client.get("/v1/invoices").await.expect(200).json["data"][0]["status"], "paid");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-72] Who cannot pay for what they have may want less of it.
#[tokio::test]
async fn who_is_past_due_may_change_to_a_cheaper_plan_for_the_next_period_and_to_no_dearer_one() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    assert_eq!(status(&client).await, "past_due");
    let to = |plan: &str, seats: u32| json!({"kind": "plan", "plan": plan, "interval": "month", "seats": seats});
    change(&client, to("team", 6)).await.expect(409);
    let preview = json!({"change": "change_plan", "subscription_id": id(&client).await, "plan": "pro", "interval": "month", "seats": 1});
    assert_eq!(client.post("/v1/subscription/preview", &preview).await.expect(200).json["effective"], "period_end");
    let changed = change(&client, to("pro", 1)).await.expect(200).json;
    assert_eq!((&changed["status"], &changed["plan"], &changed["pending"]["plan"]), (&json!("past_due"), &json!("team"), &json!("pro")));
    shop.assert_clean().await;
}

/// A year whose renewal failed, and whose grace is over; the invoice that is open for it.
async fn unpaid_year(shop: &Shop, organization: OrganizationId, client: &TestClient) -> String {
    let body = json!({"item": "plan", "plan": "team", "currency": "USD", "interval": "year", "seats": 1,
        "success_url": "https://a.example.com", "cancel_url": "https://a.example.com"});
    shop.pay(&client.post("/v1/checkout-sessions", &body).await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    shop.pass(YEAR);
    shop.renewed(1).await;
    assert_eq!(status(client).await, "past_due");
    shop.pass(Duration::from_hours(15 * 24));
    eventually("the grace is over", || async { (status(client).await == "unpaid").then_some(()) }).await;
    client.get("/v1/invoices").await.expect(200).json["data"][0]["id"].as_str().unwrap().to_owned()
}

/// [B-71] Nobody pays for a plan that he has no more: not on the invoice's page, and not by a retry of Stripe's.
#[tokio::test]
async fn who_ends_an_unpaid_plan_is_charged_no_more_and_its_invoice_is_void() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    let invoice = unpaid_year(&shop, organization, &client).await;
    assert_eq!(shop.stripe.object(&invoice)["status"], "open");
    change(&client, json!({"kind": "cancel"})).await.expect(200);
    shop.settle().await;
    assert_eq!(shop.stripe.object(&invoice)["status"], "void");
    assert_eq!(client.get("/v1/invoices").await.expect(200).json["data"][0]["status"], "void");
    shop.pays_with(organization, "pm_card_visa").await;
    shop.pass(MONTH);
    shop.settle().await;
    assert_eq!((shop.at_stripe(), status(&client).await.as_str()), (100_000, "none"));
    assert_eq!(shop.app.count("select count(*) from intents where sent_at is null").await, 0);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-70] [B-71] The customer paid and ended the plan before we were told of the payment.
#[tokio::test]
async fn a_payment_that_crosses_the_end_of_an_unpaid_plan_goes_back() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    let invoice = unpaid_year(&shop, organization, &client).await;
    shop.pays_with(organization, "pm_card_visa").await;
    shop.dashboard(&format!("/v1/invoices/{invoice}/pay"), &[]).await;
    assert_eq!(shop.at_stripe(), 200_000);
    change(&client, json!({"kind": "cancel"})).await.expect(200);
    shop.settle().await;
    assert_eq!((shop.stripe.object(&invoice)["status"].as_str(), shop.at_stripe()), (Some("paid"), 100_000));
    assert_eq!(shop.app.count("select count(*) from stripe_payments where not sold and reversed_micros = amount_micros").await, 1);
    assert_eq!(shop.app.count("select count(*) from intents where sent_at is null").await, 0);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-72]
#[tokio::test]
async fn a_trial_takes_a_card_and_charges_it_at_its_end() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let page = shop.plan(&client, "pro").await.expect(201);
    assert_eq!((status(&client).await.as_str(), page.json["amount_micros"].as_i64()), ("incomplete", Some(0)));
    shop.pass(Duration::from_hours(20));
    shop.pay(&page);
    shop.settle().await;
    let trial = client.get("/v1/subscription").await.expect(200).json["data"][0].clone();
    let end = shop.app.clock.now() + chrono::TimeDelta::days(14);
    assert_eq!((&trial["status"], trial["period"]["end"].as_str().unwrap().parse()), (&json!("trialing"), Ok(end)), "all of it");
    shop.pass(Duration::from_hours(15 * 24));
    shop.renewed(1).await;
    assert_eq!((status(&client).await.as_str(), shop.at_stripe()), ("active", 2_000));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-69] [B-72] The card that is there already, of another purchase, is not charged for what nobody agreed to.
#[tokio::test]
async fn who_leaves_the_page_of_a_trial_has_begun_nothing_and_is_never_charged_for_it() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let page = shop.plan(&client, "pro").await.expect(201);
    assert_eq!(client.get("/v1/entitlements").await.expect(200).json["plans"], json!([]), "no card, no plan");
    shop.pass(Duration::from_hours(24));
    eventually("its time is over", || async { (status(&client).await == "none").then_some(()) }).await;
    shop.pass(Duration::from_hours(15 * 24));
    shop.settle().await;
    assert_eq!((status(&client).await.as_str(), shop.at_stripe()), ("none", 1_000));
    assert_eq!(shop.stripe.object(&Shop::session(&page))["status"], "expired");
    let again = shop.plan(&client, "pro").await.expect(201);
    assert_eq!(again.json["amount_micros"], 0, "what never began was no trial");
    shop.pay(&again);
    shop.settle().await;
    assert_eq!(status(&client).await, "trialing");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-72] A payment in the portal weeks later is one payment: for a period from then on, with all of its credit.
#[tokio::test]
async fn who_pays_for_a_plan_after_its_period_is_over_pays_once_and_has_a_period_from_then_on() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.card_fails(organization).await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    assert_eq!(status(&client).await, "past_due");
    for _ in 0..10 {
        shop.pass(Duration::from_hours(7 * 24));
        shop.settle().await;
    }
    eventually("the grace is over", || async { (status(&client).await == "unpaid").then_some(()) }).await;
    let invoice = client.get("/v1/invoices").await.expect(200).json["data"][0].clone();
    let open = invoice["id"].as_str().unwrap();
    let customer = shop.stripe_customer(organization).await;
    let card =
        shop.dashboard("/v1/payment_methods/pm_card_visa/attach", &[("customer", &customer)]).await["id"].as_str().unwrap().to_owned();
    shop.dashboard(&format!("/v1/invoices/{open}/pay"), &[("payment_method", &card)]).await;
    shop.settle().await;
    let living = client.get("/v1/subscription").await.expect(200).json["data"][0].clone();
    assert_eq!((&living["status"], living["period"]["start"].as_str().unwrap().parse()), (&json!("active"), Ok(shop.app.clock.now())));
    assert_eq!(shop.at_stripe(), 20_000, "the first month and this one");
    assert_eq!(shop.app.count("select count(*) from subscription_charges").await, 2);
    assert_eq!(shop.app.balance(&client).await, (60_000_000, 0), "the first month's is over, this one's is there");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-72]
#[tokio::test]
async fn an_upgrade_and_more_seats_are_charged_at_once_by_what_is_left_and_the_end_can_be_wanted_and_unwanted() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    let seats = change(&client, json!({"kind": "seats", "seats": 7})).await.expect(200);
    assert_eq!(seats.json["seats"], 7);
    shop.settle().await;
    assert_eq!(shop.at_stripe(), 13_000, "two more seats for the whole month");
    assert_eq!(change(&client, json!({"kind": "cancel"})).await.expect(200).json["cancel_at_period_end"], true);
    assert_eq!(change(&client, json!({"kind": "cancel"})).await.expect(409).string("code"), "no_change");
    assert_eq!(change(&client, json!({"kind": "uncancel"})).await.expect(200).json["cancel_at_period_end"], false);
    assert_eq!(
        change(&client, json!({"kind": "plan", "plan": "pro", "interval": "month", "seats": 1})).await.expect(200).json["pending"]["plan"],
        "pro"
    );
    shop.pass(MONTH);
    shop.renewed(2).await;
    assert_eq!((shop.at_stripe(), status(&client).await.as_str()), (15_000, "active"));
    let key = client.header("idempotency-key", "pause-1");
    let paused = change(&key, json!({"kind": "pause"})).await.expect(200);
    assert_eq!(
        (paused.json.clone(), paused.json["status"].as_str()),
        (change(&key, json!({"kind": "pause"})).await.expect(200).json, Some("paused"))
    );
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-70] Money for what never began, and cannot any more, goes back by itself.
#[tokio::test]
async fn a_payment_that_comes_too_late_is_no_sale_and_goes_back() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let page = shop.plan(&client, "team").await.expect(201);
    shop.pay(&page);
    let news = shop.news();
    // Nobody tells us for a day.
    shop.pass(Duration::from_hours(24));
    eventually("it has expired", || async { (status(&client).await == "none").then_some(()) }).await;
    for event in news {
        shop.deliver(&event).await;
    }
    shop.handled().await;
    shop.settle().await;
    assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (0, (0, 0)));
    assert_eq!(shop.app.count("select count(*) from stripe_payments where not sold and reversed_micros = amount_micros").await, 1);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

#[tokio::test]
async fn a_coupon_that_takes_all_off_asks_for_no_page_and_gives_the_credit_as_a_gift() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let body = json!({"item": "plan", "plan": "team", "currency": "USD", "interval": "month", "seats": 1, "coupon": "all",
        "success_url": "https://a.example.com", "cancel_url": "https://a.example.com"});
    let answer = client.post("/v1/checkout-sessions", &body).await.expect(201);
    assert_eq!((&answer.json["url"], status(&client).await.as_str()), (&json!(null), "active"));
    eventually("the credit", || async { (shop.app.balance(&client).await == (60_000_000, 0)).then_some(()) }).await;
    assert_eq!(shop.app.house("promotion").await, -60_000_000);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-27] What brings no credit is sold in any currency.
#[tokio::test]
async fn a_plan_without_credit_is_paid_in_dinars_of_three_decimals() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let body = json!({"item": "plan", "plan": "plain", "currency": "KWD", "interval": "month", "seats": 1,
        "success_url": "https://a.example.com", "cancel_url": "https://a.example.com"});
    let page = client.post("/v1/checkout-sessions", &body).await.expect(201);
    shop.pay(&page);
    shop.settle().await;
    assert_eq!(status(&client).await, "active");
    let rows = shop.stripe.ledger();
    assert_eq!((rows[0].currency.as_str(), rows[0].charged), ("kwd", 2_150));
    let fees = "select balance_micros from accounts where organization_id is null and kind = 'plan_fees' and currency = 'KWD'";
    assert_eq!(shop.app.count(fees).await, 2_150_000);
    shop.assert_reconciled().await;
}

/// [B-71] A debit of a bank account takes days: the plan goes on until it came back.
#[tokio::test]
async fn a_plan_whose_payment_is_on_its_way_is_past_due_only_when_it_failed() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.pays_with(organization, "pm_usBankAccount_processing").await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    assert_eq!(status(&client).await, "active");
    shop.stripe.end_processing(&shop.payment("payment_intent.processing"), false).unwrap();
    shop.settle().await;
    assert_eq!(status(&client).await, "past_due");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-47] What is read as the payment of an invoice may change; the invoice has its effect once.
#[tokio::test]
async fn an_invoice_that_is_known_by_another_of_its_payments_is_neither_sold_again_nor_given_back() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    let balance = shop.app.balance(&client).await;
    shop.app
        .as_owner("update stripe_payments p set payment_intent_id = i.invoice_id from stripe_invoices i where i.source_id = p.source_id")
        .await;
    let mut paid = shop.stripe.events().into_iter().rfind(|event| event["type"] == "invoice.paid").unwrap();
    paid["id"] = "evt_once_more".into();
    shop.deliver(&paid).await;
    shop.handled().await;
    shop.settle().await;
    assert_eq!(shop.app.count("select count(*) from stripe_payments").await, 2);
    assert_eq!((shop.app.balance(&client).await, shop.at_stripe()), (balance, 20_000));
}

/// [B-67] [B-68] A customer that was deleted at Stripe is made anew, and what is owed is asked of it.
#[tokio::test]
async fn a_charge_of_a_customer_that_stripe_has_no_longer_is_asked_of_the_one_in_its_place() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    let gone = shop.stripe_customer(organization).await;
    shop.delete_at_stripe(&format!("/v1/customers/{gone}")).await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    assert_eq!(shop.app.count("select count(*) from intents where sent_at is null").await, 0);
    // It has no card: Stripe asks an hour later, and says so.
    shop.pass(Duration::from_hours(2));
    shop.settle().await;
    assert_eq!(status(&client).await, "past_due");
    let customer = shop.stripe_customer(organization).await;
    assert_ne!(customer, gone);
    shop.pays_with(organization, "pm_card_visa").await;
    let open = client.get("/v1/invoices").await.expect(200).json["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(shop.stripe.object(&open)["customer"], customer.as_str());
    shop.dashboard(&format!("/v1/invoices/{open}/pay"), &[]).await;
    shop.settle().await;
    assert_eq!((status(&client).await.as_str(), shop.app.balance(&client).await), ("active", (120_000_000, 0)));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-69] [B-72] A page that nobody paid binds nobody: neither to its currency nor to the end of a trial that never was.
#[tokio::test]
async fn a_page_that_was_not_paid_fixes_no_currency_and_takes_no_trial() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let plain = |currency: &str| {
        json!({"item": "plan", "plan": "plain", "currency": currency, "interval": "month", "seats": 1,
            "success_url": "https://a.example.com", "cancel_url": "https://a.example.com"})
    };
    client.post("/v1/checkout-sessions", &plain("KWD")).await.expect(201);
    let dollars = client.post("/v1/checkout-sessions", &plain("USD")).await.expect(201);
    shop.plan(&client, "team").await.expect(201);
    let trial = shop.plan(&client, "pro").await.expect(201);
    assert_eq!(trial.json["amount_micros"], 0, "the trial was taken by a plan that never began");
    shop.pay(&dollars);
    shop.settle().await;
    let refused = client.post("/v1/checkout-sessions", &plain("KWD")).await.expect(409);
    assert_eq!(refused.string("code"), "other_currency");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-69]
#[tokio::test]
async fn a_wish_that_cannot_be_had_takes_no_open_page_away() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let page = shop.plan(&client, "team").await.expect(201);
    let wrong = |change: (&str, serde_json::Value)| {
        let mut wish = json!({"item": "plan", "plan": "team", "currency": "USD", "interval": "month", "seats": 1,
            "success_url": "https://a.example.com", "cancel_url": "https://a.example.com"});
        wish[change.0] = change.1;
        wish
    };
    for change in [("currency", json!("JPY")), ("coupon", json!("none")), ("plan", json!("none"))] {
        let refused = client.post("/v1/checkout-sessions", &wrong(change.clone())).await;
        assert!(refused.status.is_client_error(), "{change:?}: {}", refused.text);
    }
    assert_eq!(shop.plan(&client, "team").await.expect(201).string("id"), page.string("id"));
    shop.pay(&page);
    shop.settle().await;
    assert_eq!(status(&client).await, "active");
    shop.assert_clean().await;
}
