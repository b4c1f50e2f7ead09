//! The routes for tests, two years of time, and the same run twice.

use serde_json::{Value, json};
use stripe_simulator::{Options, Order};

use super::client::{Shop, id};

const DAY: i64 = 86_400;

pub async fn control(shop: &Shop, path: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/_simulator/{path}", shop.simulator.url);
    let response = shop.http.post(url).json(&body).send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

#[tokio::test]
async fn time_moves_forward_only_and_by_request() {
    let shop = Shop::start().await;
    let now = shop.simulator.now();
    assert_eq!(control(&shop, "clock/advance", json!({"seconds": 60})).await, (200, json!({"now": now + 60})));
    assert_eq!(control(&shop, "clock/advance", json!({"to": now + 90})).await.1["now"], now + 90);
    assert_eq!(control(&shop, "clock/advance", json!({"to": now})).await.0, 400);
    assert_eq!(shop.simulator.now(), now + 90);
}

#[tokio::test]
async fn knobs_are_turned_by_request_and_an_empty_object_undoes_them() {
    let shop = Shop::start().await;
    let fault = json!({"kind": "rate_limited", "method": "POST", "path": "/v1/customers", "count": 2});
    assert_eq!(control(&shop, "knobs", json!({"order": "reversed", "faults": [fault]})).await.0, 200);
    assert_eq!(shop.simulator.knobs().order, Order::Reversed);
    assert_eq!(shop.try_post("customers", "").await.0, 429);
    assert_eq!(shop.try_get("customers").await.0, 200);
    control(&shop, "knobs", json!({})).await;
    assert_eq!(shop.try_post("customers", "").await.0, 200);
    assert_eq!(control(&shop, "knobs", json!({"colour": "red"})).await.0, 422);
}

#[tokio::test]
async fn sessions_and_disputes_are_decided_by_request() {
    let shop = Shop::start().await;
    let price = shop.price(1000, "usd", None).await;
    let form = format!("mode=payment&success_url=http://s.example&line_items[0][price]={price}&line_items[0][quantity]=1");
    let session = id(&shop.post("checkout/sessions", &form).await);
    let path = format!("checkout/sessions/{session}/complete");
    assert_eq!(control(&shop, &path, json!({"payment_method": "pm_card_chargeDeclined"})).await.0, 409);
    let (status, paid) = control(&shop, &path, json!({})).await;
    assert_eq!((status, &paid["payment_status"]), (200, &"paid".into()));
    let (_, dispute) = control(&shop, "disputes", json!({"of": paid["payment_intent"], "amount": 400})).await;
    assert_eq!(dispute["amount"], 400);
    let (_, closed) = control(&shop, &format!("disputes/{}/close", id(&dispute)), json!({"won": false})).await;
    assert_eq!(closed["status"], "lost");
    let ledger: Value = shop.http.get(format!("{}/_simulator/ledger", shop.simulator.url)).send().await.unwrap().json().await.unwrap();
    assert_eq!((&ledger[0]["charged"], &ledger[0]["disputed"], &ledger[0]["net"]), (&1000.into(), &400.into(), &600.into()));
}

/// Three customers in three currencies over two years; all that the simulator holds in the end.
async fn two_years(seed: u64) -> (Vec<Value>, Vec<stripe_simulator::LedgerRow>) {
    // Where it listens would be in the invoices.
    let shop = Shop::with(Options { seed, public_url: Some("http://stripe.example".to_owned()), ..Options::default() }).await;
    for (currency, amount) in [("usd", 2000), ("jpy", 3000), ("kwd", 5000)] {
        let customer = shop.customer_with("pm_card_visa").await;
        let price = shop.price(amount, currency, Some("month")).await;
        shop.post("subscriptions", &format!("customer={customer}&items[0][price]={price}")).await;
    }
    for _ in 0..24 {
        shop.simulator.advance(31 * DAY);
    }
    (shop.simulator.events(), shop.simulator.ledger())
}

#[tokio::test]
async fn two_years_in_three_currencies_are_paid_to_the_unit_and_the_same_seed_repeats_them() {
    let (events, ledger) = two_years(7).await;
    let sums: Vec<_> =
        ledger.iter().map(|row| (row.currency.as_str(), row.paid_invoices, row.invoiced == row.charged, row.charged)).collect();
    for expected in [("usd", 25, true, 50_000), ("jpy", 25, true, 75_000), ("kwd", 25, true, 125_000)] {
        assert!(sums.contains(&expected), "{sums:?}");
    }
    assert_eq!(two_years(7).await, (events.clone(), ledger));
    assert_ne!(two_years(8).await.0, events);
}
