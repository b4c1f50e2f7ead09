//! `Idempotency-Key` [B-63, B-65].

use std::time::Duration;

use reqwest::{Method, Response};
use stripe_simulator::{Fault, FaultKind};

use super::client::Shop;

async fn send(shop: &Shop, key: &str, form: &str) -> Response {
    shop.request(Method::POST, "customers", form).header("idempotency-key", key).send().await.unwrap()
}

#[tokio::test]
async fn the_same_key_gives_the_same_customer_for_a_day() {
    let shop = Shop::start().await;
    let first = send(&shop, "k", "name=a&email=b").await.text().await.unwrap();
    let again = send(&shop, "k", "email=b&name=a").await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.text().await.unwrap(), first);
    shop.simulator.advance(24 * 3600 - 1);
    assert_eq!(send(&shop, "k", "name=a&email=b").await.text().await.unwrap(), first);
    shop.simulator.advance(1);
    assert_ne!(send(&shop, "k", "name=a&email=b").await.text().await.unwrap(), first);
    assert_eq!(shop.get("customers").await["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_same_key_with_other_parameters_is_refused() {
    let shop = Shop::start().await;
    send(&shop, "k", "name=a").await;
    let refused = send(&shop, "k", "name=b").await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["error"]["type"], "idempotency_error");
}

#[tokio::test]
async fn a_request_that_was_refused_does_not_use_up_its_key() {
    let shop = Shop::start().await;
    assert_eq!(send(&shop, "k", "nothing=a").await.status(), 400);
    assert_eq!(send(&shop, "k", "name=a").await.status(), 200);
}

#[tokio::test]
async fn a_second_request_while_the_first_is_at_work_is_a_conflict() {
    let shop = Shop::start().await;
    let slow = Fault { delay_ms: 3_600_000, ..Fault::next(FaultKind::Slow, "POST", "/v1/customers") };
    shop.simulator.turn_knobs(|knobs| knobs.faults.push(slow));
    let first = shop.request(Method::POST, "customers", "name=a").header("idempotency-key", "k").timeout(Duration::from_millis(300));
    assert!(first.send().await.unwrap_err().is_timeout());
    let second = send(&shop, "k", "name=a").await;
    assert_eq!(second.status(), 409);
    assert_eq!(second.json::<serde_json::Value>().await.unwrap()["error"]["code"], "idempotency_key_in_use");
}

#[tokio::test]
async fn a_stored_500_is_replayed_though_the_customer_was_made() {
    let shop = Shop::start().await;
    shop.simulator.turn_knobs(|knobs| knobs.faults.push(Fault::next(FaultKind::ErrorAfterEffect, "POST", "/v1/customers")));
    for replayed in [false, true, true] {
        let answer = send(&shop, "k", "name=a").await;
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("idempotent-replayed")), (500, replayed));
    }
    assert_eq!(shop.get("customers").await["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn after_a_timeout_the_key_gives_what_was_done() {
    let shop = Shop::start().await;
    shop.simulator.turn_knobs(|knobs| knobs.faults.push(Fault::next(FaultKind::TimeoutAfterEffect, "POST", "/v1/customers")));
    let first = shop.request(Method::POST, "customers", "name=a").header("idempotency-key", "k").timeout(Duration::from_millis(300));
    assert!(first.send().await.unwrap_err().is_timeout());
    let second = send(&shop, "k", "name=a").await;
    assert_eq!((second.status().as_u16(), second.headers().contains_key("idempotent-replayed")), (200, true));
    assert_eq!(shop.get("customers").await["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_limit_of_the_rate_does_nothing_and_says_when_to_come_back() {
    let shop = Shop::start().await;
    let limit =
        Fault { retry_after_s: 7, should_retry: Some(true), count: 2, ..Fault::next(FaultKind::RateLimited, "POST", "/v1/customers") };
    shop.simulator.turn_knobs(|knobs| knobs.faults.push(limit));
    for _ in 0..2 {
        let limited = send(&shop, "k", "name=a").await;
        assert_eq!(limited.status(), 429);
        assert_eq!(
            (&limited.headers()["retry-after"], &limited.headers()["stripe-should-retry"]),
            (&"7".parse().unwrap(), &"true".parse().unwrap())
        );
    }
    assert_eq!(send(&shop, "k", "name=a").await.status(), 200);
    assert_eq!(shop.get("customers").await["data"].as_array().unwrap().len(), 1);
}

/// [B-68]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_requests_at_once_with_one_key_one_makes_the_customer() {
    let shop = std::sync::Arc::new(Shop::start().await);
    let race: Vec<_> = (0..64)
        .map(|_| {
            let shop = std::sync::Arc::clone(&shop);
            tokio::spawn(async move { send(&shop, "k", "name=a").await.status().as_u16() })
        })
        .collect();
    for one in race {
        let status = one.await.unwrap();
        assert!(status == 200 || status == 409, "{status}");
    }
    assert_eq!(shop.get("customers").await["data"].as_array().unwrap().len(), 1);
    assert_eq!(shop.simulator.events().len(), 1);
}
