//! Checkout sessions, by the page and by the method for tests.

use serde_json::{Value, json};

use super::client::{Shop, id};
use super::control::control;

async fn session(shop: &Shop, kind: &str, price: &str, more: &str) -> Value {
    let form = format!(
        "mode={kind}&success_url=http://shop.example/done?s={{CHECKOUT_SESSION_ID}}&line_items[0][price]={price}&line_items[0][quantity]=2{more}"
    );
    shop.post("checkout/sessions", &form).await
}

async fn press(shop: &Shop, session: &Value, action: &str) -> reqwest::Response {
    shop.press(session["url"].as_str().unwrap(), "action", action).await
}

#[tokio::test]
async fn a_person_fails_and_then_pays_and_is_sent_back_to_the_shop() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    let price = shop.price(1250, "usd", None).await;
    let more = format!(
        "&customer={customer}&client_reference_id=org_1&metadata[pack]=a&payment_intent_data[metadata][grant]=g&cancel_url=http://shop.example"
    );
    let open = session(&shop, "payment", &price, &more).await;
    assert_eq!((&open["status"], &open["payment_status"], &open["amount_total"]), (&"open".into(), &"unpaid".into(), &2500.into()));
    let page = shop.http.get(open["url"].as_str().unwrap()).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("2 × Plan") && page.contains("25.00 USD") && page.contains("3-D Secure"), "{page}");
    let failed = press(&shop, &open, "fail").await;
    assert!(failed.text().await.unwrap().contains("Your card was declined."));
    assert_eq!(shop.get(&format!("checkout/sessions/{}", id(&open))).await["status"], "open");
    let paid = press(&shop, &open, "pay").await;
    assert_eq!(paid.status(), 303);
    assert_eq!(paid.headers()["location"], format!("http://shop.example/done?s={}", id(&open)));
    let done = shop.get(&format!("checkout/sessions/{}?expand[]=payment_intent&expand[]=line_items", id(&open))).await;
    assert_eq!((&done["status"], &done["payment_status"], &done["url"]), (&"complete".into(), &"paid".into(), &Value::Null));
    assert_eq!((&done["payment_intent"]["metadata"]["grant"], &done["line_items"]["data"][0]["quantity"]), (&"g".into(), &2.into()));
    assert_eq!(press(&shop, &open, "pay").await.status(), 410, "a second tab pays nothing");
    assert_eq!(shop.simulator.ledger()[0].charged, 2500);
    assert_eq!(shop.event_types().last().unwrap(), "checkout.session.completed");
}

#[tokio::test]
async fn a_subscription_is_bought_with_a_card_whose_bank_asks() {
    let shop = Shop::start().await;
    let price = shop.price(900, "eur", Some("month")).await;
    let open = session(&shop, "subscription", &price, "&customer_email=a@example.com&subscription_data[metadata][plan]=pro").await;
    let asked = press(&shop, &open, "authenticate").await;
    assert!(asked.text().await.unwrap().contains("Complete authentication"));
    assert!(press(&shop, &open, "refuse").await.text().await.unwrap().contains("not confirmed"));
    assert!(shop.get("subscriptions?status=all").await["data"].as_array().unwrap().is_empty());
    press(&shop, &open, "authenticate").await;
    assert_eq!(press(&shop, &open, "confirm").await.status(), 303);
    let done = shop.get(&format!("checkout/sessions/{}?expand[]=subscription&expand[]=invoice", id(&open))).await;
    assert_eq!((&done["subscription"]["status"], &done["subscription"]["metadata"]["plan"]), (&"active".into(), &"pro".into()));
    assert_eq!((&done["invoice"]["status"], &done["invoice"]["amount_paid"]), (&"paid".into(), &1800.into()));
    assert_eq!(done["customer_details"]["email"], "a@example.com");
}

#[tokio::test]
async fn a_session_for_a_card_leaves_it_with_the_customer() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    let open = shop.post("checkout/sessions", &format!("mode=setup&success_url=http://s.example&customer={customer}&currency=usd")).await;
    let done = shop.simulator.complete_checkout(&id(&open), "pm_card_visa").unwrap();
    assert_eq!(done["payment_status"], "no_payment_required");
    assert_eq!(shop.get(&format!("customers/{customer}/payment_methods")).await["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn discounts_and_taxes_are_in_the_sums() {
    let shop = Shop::start().await;
    shop.post("coupons", "percent_off=10&duration=once&id=TEN").await;
    let rate = id(&shop.post("tax_rates", "display_name=VAT&percentage=19&inclusive=false").await);
    let price = shop.price(1000, "usd", None).await;
    let open = session(&shop, "payment", &price, &format!("&discounts[0][coupon]=TEN&line_items[0][tax_rates][0]={rate}")).await;
    assert_eq!((&open["amount_subtotal"], &open["amount_total"]), (&2000.into(), &2142.into()));
    assert_eq!((&open["total_details"]["amount_discount"], &open["total_details"]["amount_tax"]), (&200.into(), &342.into()));
}

#[tokio::test]
async fn a_session_expires_by_time_or_by_hand_and_is_not_paid_then() {
    let shop = Shop::start().await;
    let price = shop.price(1000, "jpy", None).await;
    let [late, dropped] = [session(&shop, "payment", &price, "").await, session(&shop, "payment", &price, "").await];
    assert_eq!(shop.post(&format!("checkout/sessions/{}/expire", id(&dropped)), "").await["status"], "expired");
    shop.simulator.advance(86_400);
    assert_eq!(shop.get(&format!("checkout/sessions/{}", id(&late))).await["status"], "expired");
    assert!(shop.simulator.complete_checkout(&id(&late), "pm_card_visa").is_err());
    assert_eq!(shop.event_types().iter().filter(|kind| *kind == "checkout.session.expired").count(), 2);
}

#[tokio::test]
async fn a_mode_that_does_not_fit_its_prices_is_refused() {
    let shop = Shop::start().await;
    let (once, monthly) = (shop.price(100, "usd", None).await, shop.price(100, "usd", Some("month")).await);
    for (mode, price) in [("payment", &monthly), ("subscription", &once)] {
        let form = format!("mode={mode}&success_url=http://s.example&line_items[0][price]={price}&line_items[0][quantity]=1");
        assert_eq!(shop.try_post("checkout/sessions", &form).await.1["error"]["param"], "mode");
    }
}

#[tokio::test]
async fn the_portal_shows_what_a_customer_has_and_cancels_it() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let price = shop.price(700, "usd", Some("month")).await;
    let bought = shop.post("subscriptions", &format!("customer={customer}&items[0][price]={price}")).await;
    let portal = shop.post("billing_portal/sessions", &format!("customer={customer}&return_url=http://shop.example/back")).await;
    let url = portal["url"].as_str().unwrap();
    let page = shop.http.get(url).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("7.00 USD") && page.contains("http://shop.example/back"), "{page}");
    assert_eq!(shop.press(url, "cancel", &id(&bought)).await.status(), 303);
    assert_eq!(shop.get(&format!("subscriptions/{}", id(&bought))).await["cancel_at_period_end"], true);
}

#[tokio::test]
async fn a_session_that_is_paid_by_slow_means_is_complete_before_it_is_paid() {
    let shop = Shop::start().await;
    let price = shop.price(1250, "usd", None).await;
    for (pays, event, status, left) in [
        (true, "checkout.session.async_payment_succeeded", "paid", "succeeded"),
        (false, "checkout.session.async_payment_failed", "unpaid", "requires_payment_method"),
    ] {
        let open = session(&shop, "payment", &price, "&payment_method_types[0]=us_bank_account").await;
        assert_eq!(open["payment_method_types"], json!(["us_bank_account"]));
        let complete = shop.simulator.complete_checkout(&id(&open), "pm_usBankAccount_processing").unwrap();
        assert_eq!((&complete["status"], &complete["payment_status"]), (&"complete".into(), &"unpaid".into()));
        assert_eq!(shop.event_types().last().unwrap(), "checkout.session.completed");
        let (code, _) =
            control(&shop, &format!("payment_intents/{}/end", complete["payment_intent"].as_str().unwrap()), json!({"pays": pays})).await;
        assert_eq!((code, shop.event_types().last().unwrap().as_str()), (200, event));
        let found = shop.get(&format!("checkout/sessions/{}?expand[]=payment_intent", id(&open))).await;
        let ended = (&found["status"], &found["payment_status"], &found["payment_intent"]["status"]);
        assert_eq!(ended, (&"complete".into(), &status.into(), &left.into()));
    }
}
