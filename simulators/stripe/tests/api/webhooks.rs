//! Events and their delivery.

use stripe_simulator::{Knobs, Options, Order, Webhook};

use super::client::{Shop, id};
use super::receiver::Receiver;

async fn shop_with(receiver: &Receiver, secrets: &[&str], knobs: Knobs) -> Shop {
    let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
    Shop::with(Options { webhooks: vec![Webhook { url: receiver.url.clone(), secrets }], knobs, ..Options::default() }).await
}

/// A customer that is made, changed and deleted: three events.
async fn three_events(shop: &Shop) -> [&'static str; 3] {
    let customer = shop.customer().await;
    shop.post(&format!("customers/{customer}"), "name=x").await;
    shop.delete(&format!("customers/{customer}")).await;
    ["customer.created", "customer.updated", "customer.deleted"]
}

#[tokio::test]
async fn events_arrive_in_order_signed_by_each_secret() {
    let receiver = Receiver::start(0).await;
    let shop = shop_with(&receiver, &["whsec_one", "whsec_two"], Knobs::default()).await;
    let types = three_events(&shop).await;
    shop.simulator.settled().await;
    assert_eq!(receiver.types(), types);
    for received in receiver.all() {
        assert!(received.is_signed_by("whsec_one") && received.is_signed_by("whsec_two") && !received.is_signed_by("whsec_three"));
        assert_eq!(received.event(), shop.get(&format!("events/{}", id(&received.event()))).await);
    }
}

/// As while a secret is being replaced [B-5].
#[tokio::test]
async fn a_second_secret_signs_beside_the_first_while_a_knob_says_so() {
    let receiver = Receiver::start(0).await;
    let shop = shop_with(&receiver, &["whsec_old"], Knobs { extra_secret: vec!["whsec_new".to_owned()], ..Knobs::default() }).await;
    shop.customer().await;
    shop.simulator.settled().await;
    shop.simulator.turn_knobs(|knobs| *knobs = Knobs::default());
    shop.customer().await;
    shop.simulator.settled().await;
    let signed: Vec<_> = receiver.all().iter().map(|one| (one.is_signed_by("whsec_old"), one.is_signed_by("whsec_new"))).collect();
    assert_eq!(signed, [(true, true), (true, false)]);
}

#[tokio::test]
async fn held_events_go_out_reversed_and_doubled() {
    let receiver = Receiver::start(0).await;
    let knobs = Knobs { hold: true, order: Order::Reversed, duplicates: 1, ..Knobs::default() };
    let shop = shop_with(&receiver, &["s"], knobs).await;
    let types = three_events(&shop).await;
    shop.simulator.settled().await;
    assert!(receiver.types().is_empty());
    assert_eq!(shop.simulator.release(), 3);
    shop.simulator.settled().await;
    let expected: Vec<_> = types.iter().rev().flat_map(|kind| [*kind, *kind]).collect();
    assert_eq!(receiver.types(), expected);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_shuffle_and_the_same_losses() {
    let mut runs = Vec::new();
    for seed in [3, 3, 4] {
        let receiver = Receiver::start(0).await;
        let knobs = Knobs { hold: true, order: Order::Shuffled, drop_percent: 40, ..Knobs::default() };
        let webhooks = vec![Webhook { url: receiver.url.clone(), secrets: vec!["s".to_owned()] }];
        let shop = Shop::with(Options { webhooks, knobs, seed, ..Options::default() }).await;
        for _ in 0..10 {
            three_events(&shop).await;
        }
        assert_eq!(shop.simulator.release(), 30);
        shop.simulator.settled().await;
        runs.push(receiver.types());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    assert!(runs[0].len() < 30);
}

#[tokio::test]
async fn what_is_refused_is_sent_again() {
    let receiver = Receiver::start(2).await;
    let shop = shop_with(&receiver, &["s"], Knobs { retry_ms: 1, ..Knobs::default() }).await;
    shop.customer().await;
    shop.simulator.settled().await;
    let tries: Vec<_> = shop.simulator.deliveries().iter().map(|row| (row.attempt, row.status)).collect();
    assert_eq!(tries, [(1, Some(500)), (2, Some(500)), (3, Some(200))]);
}

#[tokio::test]
async fn events_can_be_delivered_in_any_order_one_by_one() {
    let receiver = Receiver::start(0).await;
    let shop = shop_with(&receiver, &["s"], Knobs { hold: true, ..Knobs::default() }).await;
    three_events(&shop).await;
    let ids: Vec<String> = shop.simulator.events().iter().map(id).collect();
    let order = [ids[2].clone(), ids[0].clone(), ids[1].clone(), ids[0].clone()];
    assert_eq!(shop.simulator.deliver(&order).await, [Some(200); 4]);
    assert_eq!(receiver.types(), ["customer.deleted", "customer.created", "customer.updated", "customer.created"]);
}

#[tokio::test]
async fn an_endpoint_gets_the_types_that_it_asked_for_signed_by_its_own_secret() {
    let receiver = Receiver::start(0).await;
    let shop = Shop::start().await;
    let form = format!("url={}&enabled_events[]=customer.deleted", receiver.url);
    let endpoint = shop.post("webhook_endpoints", &form).await;
    three_events(&shop).await;
    shop.simulator.settled().await;
    assert_eq!(receiver.types(), ["customer.deleted"]);
    assert!(receiver.all()[0].is_signed_by(endpoint["secret"].as_str().unwrap()));
    assert!(shop.get(&format!("webhook_endpoints/{}", id(&endpoint))).await["secret"].is_null());
}

#[tokio::test]
async fn events_are_listed_by_type_for_thirty_days() {
    let shop = Shop::start().await;
    three_events(&shop).await;
    let found = shop.get("events?types[]=customer.created&types[]=customer.deleted").await;
    assert_eq!(found["data"].as_array().unwrap().len(), 2);
    assert_eq!(shop.get("events?type=customer.*").await["data"].as_array().unwrap().len(), 3);
    shop.simulator.advance(30 * 86_400 + 1);
    assert!(shop.get("events").await["data"].as_array().unwrap().is_empty());
}
