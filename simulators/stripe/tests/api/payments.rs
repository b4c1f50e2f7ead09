//! Payment intents, refunds, disputes, and the ledger that sums them.

use serde_json::{Value, json};

use super::client::{Shop, id};

async fn paid(shop: &Shop, amount: i64) -> Value {
    let customer = shop.customer().await;
    let form = format!("amount={amount}&currency=usd&customer={customer}&payment_method=pm_card_visa&confirm=true&metadata[order]=7");
    shop.post("payment_intents", &form).await
}

#[tokio::test]
async fn a_payment_succeeds_with_its_charge() {
    let shop = Shop::start().await;
    let intent = paid(&shop, 2500).await;
    assert_eq!((&intent["status"], &intent["amount_received"]), (&"succeeded".into(), &2500.into()));
    let found = shop.get(&format!("payment_intents/{}?expand[]=latest_charge", id(&intent))).await;
    assert_eq!((&found["latest_charge"]["status"], &found["latest_charge"]["amount_captured"]), (&"succeeded".into(), &2500.into()));
    assert_eq!(shop.event_types()[1..], ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]);
}

#[tokio::test]
async fn each_refusing_card_says_why_and_leaves_the_intent_open() {
    let shop = Shop::start().await;
    for (card, code, decline) in [
        ("pm_card_chargeDeclined", "card_declined", json!("generic_decline")),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", json!("insufficient_funds")),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", Value::Null),
    ] {
        let (status, refused) =
            shop.try_post("payment_intents", &format!("amount=500&currency=usd&payment_method={card}&confirm=true")).await;
        let error = &refused["error"];
        assert_eq!((status, &error["type"], &error["code"], &error["decline_code"]), (402, &"card_error".into(), &code.into(), &decline));
        assert_eq!(error["payment_intent"]["status"], "requires_payment_method");
        let again = format!("payment_intents/{}/confirm", id(&error["payment_intent"]));
        assert_eq!(shop.post(&again, "payment_method=pm_card_visa").await["status"], "succeeded");
    }
}

#[tokio::test]
async fn a_bank_that_asks_is_answered_on_its_page_or_not() {
    let shop = Shop::start().await;
    for (action, status) in [("confirm", "succeeded"), ("refuse", "requires_payment_method")] {
        let form = "amount=500&currency=usd&payment_method=pm_card_threeDSecure2Required&confirm=true&return_url=http://shop.example/back";
        let asked = shop.post("payment_intents", form).await;
        assert_eq!(asked["status"], "requires_action");
        let url = asked["next_action"]["redirect_to_url"]["url"].as_str().unwrap();
        assert!(shop.http.get(url).send().await.unwrap().text().await.unwrap().contains("Complete authentication"));
        let answered = shop.press(url, "action", action).await;
        assert_eq!(answered.headers()["location"], "http://shop.example/back");
        assert_eq!(shop.get(&format!("payment_intents/{}", id(&asked))).await["status"], status);
    }
    let away = "amount=500&currency=usd&payment_method=pm_card_threeDSecure2Required&confirm=true&off_session=true";
    let (status, refused) = shop.try_post("payment_intents", away).await;
    assert_eq!((status, &refused["error"]["code"]), (402, &"authentication_required".into()));
}

#[tokio::test]
async fn refunds_never_give_back_more_than_was_paid() {
    let shop = Shop::start().await;
    let intent = paid(&shop, 1000).await;
    let refund = |amount: &str| format!("payment_intent={}{amount}", id(&intent));
    assert_eq!(shop.post("refunds", &refund("&amount=300")).await["status"], "succeeded");
    let (status, over) = shop.try_post("refunds", &refund("&amount=701")).await;
    assert_eq!((status, &over["error"]["param"]), (400, &"amount".into()));
    assert_eq!(over["error"]["message"], "Refund amount (7.01 USD) is greater than unrefunded amount on charge (7.00 USD)");
    assert_eq!(shop.post("refunds", &refund("")).await["amount"], 700);
    assert_eq!(shop.try_post("refunds", &refund("")).await.1["error"]["code"], "charge_already_refunded");
    let charge = shop.get(&format!("charges/{}", intent["latest_charge"].as_str().unwrap())).await;
    assert_eq!((&charge["refunded"], &charge["amount_refunded"]), (&true.into(), &1000.into()));
    let row = &shop.simulator.ledger()[0];
    assert_eq!((row.charges, row.charged, row.refunded, row.net), (1, 1000, 1000, 0));
}

#[tokio::test]
async fn a_dispute_takes_the_money_and_a_won_one_brings_it_back() {
    let shop = Shop::start().await;
    let nets = |shop: &Shop| shop.simulator.ledger().iter().map(|row| row.net).sum::<i64>();
    let [won, lost] = [paid(&shop, 1000).await, paid(&shop, 500).await];
    let dispute = shop.simulator.open_dispute(&id(&won), None, "fraudulent").unwrap();
    shop.simulator.open_dispute(&id(&lost), Some(200), "product_not_received").unwrap();
    assert!(shop.simulator.open_dispute(&id(&lost), Some(200), "duplicate").is_err());
    assert_eq!(nets(&shop), 300);
    assert_eq!(shop.try_post("refunds", &format!("payment_intent={}", id(&won))).await.1["error"]["code"], "charge_disputed");
    let found = shop.get(&format!("disputes?payment_intent={}", id(&won))).await;
    assert_eq!(found["data"][0]["status"], "needs_response");
    assert_eq!(shop.simulator.close_dispute(&id(&dispute), true).unwrap()["status"], "won");
    assert_eq!(nets(&shop), 1300);
    let types = shop.event_types();
    assert!(types.ends_with(&["charge.dispute.closed".to_owned(), "charge.dispute.funds_reinstated".to_owned()]));
}

#[tokio::test]
async fn the_movements_of_a_dispute_are_in_the_currency_in_which_the_account_is_settled() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    let form = |currency: &str| format!("amount=1500&currency={currency}&customer={customer}&payment_method=pm_card_visa&confirm=true");
    shop.simulator.settles_in("usd", 666_667);
    for (currency, amount, rate) in [("jpy", -1000, json!(0.666_667)), ("usd", -1500, Value::Null)] {
        let paid = shop.post("payment_intents", &form(currency)).await;
        let dispute = shop.simulator.open_dispute(&id(&paid), None, "fraudulent").unwrap();
        assert_eq!((&dispute["currency"], &dispute["amount"]), (&currency.into(), &1500.into()));
        let moved = &dispute["balance_transactions"][0];
        assert_eq!((&moved["currency"], &moved["amount"], &moved["fee"]), (&"usd".into(), &amount.into(), &1500.into()));
        assert_eq!(moved["exchange_rate"], rate);
    }
}

#[tokio::test]
async fn an_authorized_payment_is_captured_in_part_or_canceled() {
    let shop = Shop::start().await;
    let form = "amount=1000&currency=usd&payment_method=pm_card_visa&confirm=true&capture_method=manual";
    let held = shop.post("payment_intents", form).await;
    assert_eq!((&held["status"], &held["amount_capturable"]), (&"requires_capture".into(), &1000.into()));
    assert_eq!(shop.try_post(&format!("payment_intents/{}/capture", id(&held)), "amount_to_capture=1001").await.0, 400);
    let taken = shop.post(&format!("payment_intents/{}/capture", id(&held)), "amount_to_capture=400").await;
    assert_eq!((&taken["status"], &taken["amount_received"]), (&"succeeded".into(), &400.into()));
    let other = shop.post("payment_intents", form).await;
    assert_eq!(shop.post(&format!("payment_intents/{}/cancel", id(&other)), "").await["status"], "canceled");
    assert_eq!(shop.try_post(&format!("payment_intents/{}/confirm", id(&other)), "").await.0, 400);
}

#[tokio::test]
async fn amounts_that_no_card_is_charged_are_refused() {
    let shop = Shop::start().await;
    for (form, code) in [("amount=49&currency=usd", "amount_too_small"), ("amount=100000000&currency=usd", "amount_too_large")] {
        assert_eq!(shop.try_post("payment_intents", form).await.1["error"]["code"], code);
    }
    assert_eq!(shop.try_post("payment_intents", "amount=1005&currency=kwd").await.0, 400);
    assert_eq!(shop.post("payment_intents", "amount=1000&currency=kwd").await["amount"], 1000);
}
