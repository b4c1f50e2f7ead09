//! What is sent to webhook endpoints of customers: signed, tried again, to the public internet alone, and nobody waits for who hangs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use billing_service::budgets::alerts::evaluate_all;
use billing_service::budgets::webhooks::deliveries::enqueue;
use billing_service::budgets::webhooks::signature::sign;
use chassis::SecretString;
use http::{HeaderMap, Method, StatusCode};
use identity::OrganizationId;
use serde_json::{Value, json};
use testkit::eventually::eventually;
use testkit::http::TestClient;

use super::app::App;
use super::budgets::{budget, owner, spend};

pub type Received = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// Listens with this on a port of this machine; where messages go.
async fn listen(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// Somebody who receives messages, and refuses the first of them.
pub async fn receiver(refusals: usize) -> (String, Received) {
    let received = Received::default();
    let kept = received.clone();
    let router = Router::new().route(
        "/hook",
        post(move |headers: HeaderMap, body: String| async move {
            let mut kept = kept.lock().unwrap();
            kept.push((headers, body));
            if kept.len() > refusals { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR }
        }),
    );
    (listen(router).await, received)
}

/// Somebody who takes messages and never answers, and how many were taken.
async fn hanging() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let router = Router::new().route(
        "/hook",
        post(move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<StatusCode>().await
        }),
    );
    (listen(router).await, asked)
}

/// Somebody who sends every message on to another address.
async fn redirecting(to: String) -> String {
    listen(Router::new().route("/hook", post(move || async move { (StatusCode::TEMPORARY_REDIRECT, [("location", to)]) }))).await
}

/// Writes so many messages to an organization's endpoints.
pub async fn write(app: &App, organization: OrganizationId, messages: usize) {
    let state = app.state();
    let mut transaction = state.pool.begin().await.unwrap();
    for number in 0..messages {
        enqueue(&state, &mut transaction, organization, &format!("{organization}-{number}"), "test", &json!({})).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// Has a message sent for again.
async fn replay(client: &TestClient, delivery: &Value) {
    let path = format!("/v1/webhook-deliveries/{}/replay", delivery.as_str().unwrap());
    client.send(Method::POST, &path, None).await.expect(202);
}

#[tokio::test]
async fn an_alert_is_signed_retried_until_it_arrives_and_can_be_sent_again() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let (ada, client) = owner(&app);
    let (url, received) = receiver(1).await;
    let endpoint = client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    let again = client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    assert_eq!(endpoint.json, again.json, "registered twice, there once");
    client.post("/v1/budgets", &budget(&json!({"thresholds": [50]}))).await.expect(201);
    spend(&app, ada).await;
    evaluate_all(&app.state()).await.unwrap();
    eventually("the first attempt is refused", || async { (received.lock().unwrap().len() == 1).then_some(()) }).await;
    eventually("it arrived", || async {
        app.turn.advance(Duration::from_secs(10));
        (client.get("/v1/webhook-deliveries").await.json["data"][0]["state"] == "delivered").then_some(())
    })
    .await;
    let delivery = client.get("/v1/webhook-deliveries").await.json["data"][0].clone();
    assert_eq!((&delivery["attempts"], &delivery["last_status"]), (&json!(2), &json!(204)));
    let alert = client.get("/v1/budget-alerts").await.expect(200).json["data"][0].clone();
    assert_eq!(alert["id"], delivery["message_id"]);
    replay(&client, &delivery["id"]).await;
    eventually("it is sent again", || async { (received.lock().unwrap().len() == 3).then_some(()) }).await;
    let secret: SecretString = endpoint.string("secret").into();
    for (headers, body) in received.lock().unwrap().iter() {
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(header("webhook-id"), delivery["message_id"].as_str().unwrap());
        let expected = sign(&secret, header("webhook-id"), header("webhook-timestamp").parse().unwrap(), body.as_bytes()).unwrap();
        assert_eq!(header("webhook-signature"), expected);
        let event: Value = serde_json::from_str(body).unwrap();
        assert_eq!(event, delivery["payload"], "what is listed is not what is sent");
        assert_eq!((&event["type"], &event["data"]["spent_micros"]), (&json!("budget.threshold_reached"), &json!(1500)));
    }
}

/// [I-83]
#[tokio::test]
async fn a_secret_is_replaced_while_messages_go_on_and_a_lost_answer_is_asked_for_again() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let (ada, client) = owner(&app);
    let (url, received) = receiver(0).await;
    let endpoint = client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    let path = format!("/v1/webhook-endpoints/{}/rotate-secret", endpoint.string("id"));
    let first: SecretString = endpoint.string("secret").into();
    let rotated = client.post(&path, &json!({})).await.expect(200);
    let again = client.post(&path, &json!({"former_for_seconds": 604_800})).await.expect(200);
    assert_eq!(rotated.json, again.json, "the answer was lost");
    let second: SecretString = rotated.string("secret").into();
    assert_ne!(rotated.string("secret"), endpoint.string("secret"));
    let signatures = async |number: usize| {
        eventually("it arrived", || async { (received.lock().unwrap().len() == number).then_some(()) }).await;
        let (headers, body) = received.lock().unwrap()[number - 1].clone();
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp").parse().unwrap());
        let of = |secret: &SecretString| sign(secret, &id, timestamp, body.as_bytes()).unwrap();
        (header("webhook-signature"), of(&first), of(&second))
    };
    write(&app, ada, 1).await;
    let (sent, by_first, by_second) = signatures(1).await;
    assert_eq!(sent, format!("{by_second} {by_first}"));
    app.turn.advance(Duration::from_hours(24));
    let listed = client.get("/v1/webhook-endpoints").await.expect(200).json["data"][0].clone();
    assert_eq!((&listed["former_secret_until"], &listed["secret"]), (&Value::Null, &Value::Null));
    let known = client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    assert_eq!(known.string("secret"), rotated.string("secret"));
    let delivery = client.get("/v1/webhook-deliveries").await.json["data"][0]["id"].clone();
    replay(&client, &delivery).await;
    let (sent, _, by_second) = signatures(2).await;
    assert_eq!(sent, by_second, "the former one has ended");
    let third = client.post(&path, &json!({"former_for_seconds": 0})).await.expect(200);
    assert_eq!(third.json["former_secret_until"], Value::Null);
    assert_ne!(third.string("secret"), rotated.string("secret"));
    let refused = client.post(&path, &json!({"former_for_seconds": 604_801})).await.expect(422);
    assert!(refused.json.to_string().contains("former_for_seconds"), "{}", refused.json);
    let (_, eve) = owner(&app);
    eve.post(&path, &json!({})).await.expect(404);
}

/// With many messages, each of which has tries of its own, it would take the places of everybody else for hours.
#[tokio::test]
async fn an_endpoint_that_fails_again_and_again_rests_as_a_whole_and_when_it_answers_nothing_waits() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let (ada, client) = owner(&app);
    let (url, received) = receiver(5).await;
    client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    write(&app, ada, 7).await;
    let rests = || async { client.get("/v1/webhook-endpoints").await.expect(200).json["data"][0]["rests_until"].clone() };
    eventually("it rests", || async { rests().await.is_string().then_some(()) }).await;
    assert_eq!(received.lock().unwrap().len(), 5);
    let early = "select count(*) from webhook_deliveries d join webhook_endpoints e on e.id = d.endpoint_id
                 where d.state <> 'waiting' or d.next_attempt_at < e.rests_until";
    assert_eq!(app.count(early).await, 0, "no message has a turn before it has rested");
    let state = app.state();
    let mut transaction = state.pool.begin().await.unwrap();
    enqueue(&state, &mut transaction, ada, "later", "test", &json!({})).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(app.count(early).await, 0, "nor one that is written meanwhile");
    app.turn.advance(Duration::from_mins(1));
    let delivered = "select count(*) from webhook_deliveries where state = 'delivered'";
    eventually("it answers, and has them all", || async { (app.count(delivered).await == 8).then_some(()) }).await;
    assert_eq!(rests().await, Value::Null);
}

/// One at a time is tried while it rests: all of them would have their tries after months.
#[tokio::test]
async fn what_has_waited_for_three_days_is_set_aside_when_its_endpoint_rests_again_and_waits_anew_when_it_is_sent_for_again() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let (ada, client) = owner(&app);
    let (url, received) = receiver(usize::MAX).await;
    client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    write(&app, ada, 7).await;
    // The receiver has the last try before it is noted that it was one.
    let rests = "select count(*) from webhook_endpoints where rests_until is not null";
    eventually("it rests", || async { (received.lock().unwrap().len() == 5 && app.count(rests).await == 1).then_some(()) }).await;
    app.turn.advance(Duration::from_hours(73));
    eventually("it is tried again", || async { (received.lock().unwrap().len() == 6).then_some(()) }).await;
    let failed = "select count(*) from webhook_deliveries where state = 'failed'";
    eventually("the others are set aside", || async { (app.count(failed).await == 6).then_some(()) }).await;
    let page = client.get("/v1/webhook-deliveries").await.expect(200);
    let listed = page.json["data"].as_array().unwrap();
    let aside: Vec<_> = listed.iter().filter(|delivery| delivery["state"] == "failed").collect();
    assert!(aside.iter().all(|delivery| delivery["last_error"].is_string()), "{aside:?}");
    replay(&client, &aside[0]["id"]).await;
    eventually("it is tried by itself", || async { (received.lock().unwrap().len() == 7).then_some(()) }).await;
    let last = "select count(*) from webhook_deliveries where state = 'waiting' and replayed_at is not null";
    eventually("it waits, and the one that was tried before it does not", || async {
        (app.count(last).await == 1 && app.count(failed).await == 6).then_some(())
    })
    .await;
}

/// One endpoint is asked one thing at a time, and who never answers holds up nobody else, also with messages for every lane.
#[tokio::test]
async fn an_endpoint_that_hangs_has_one_message_in_flight_and_delays_no_other_endpoint() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let ((ada, slow), (eve, quick)) = (owner(&app), owner(&app));
    let (hung, asked) = hanging().await;
    let (url, received) = receiver(0).await;
    slow.post("/v1/webhook-endpoints", &json!({"url": hung})).await.expect(201);
    quick.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    write(&app, ada, 20).await;
    eventually("the slow one is asked", || async { (asked.load(Ordering::SeqCst) > 0).then_some(()) }).await;
    // Written while every lane that could wait for the slow one does.
    write(&app, eve, 20).await;
    eventually("the other has all of its own", || async { (received.lock().unwrap().len() == 20).then_some(()) }).await;
    let over = "select count(*) from webhook_deliveries where last_error is not null";
    assert_eq!((asked.load(Ordering::SeqCst), app.count(over).await), (1, 0), "the slow one was waited for, or asked more than one thing");
}

/// An organization may have more endpoints than there are lanes.
#[tokio::test]
async fn an_organization_whose_every_endpoint_hangs_delays_no_other_organization() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let ((ada, slow), (eve, quick)) = (owner(&app), owner(&app));
    let (hung, asked) = hanging().await;
    let (url, received) = receiver(0).await;
    for number in 0..20 {
        slow.post("/v1/webhook-endpoints", &json!({"url": format!("{hung}?{number}")})).await.expect(201);
    }
    quick.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    write(&app, ada, 2).await;
    eventually("two of the slow ones are asked", || async { (asked.load(Ordering::SeqCst) == 2).then_some(()) }).await;
    write(&app, eve, 20).await;
    eventually("the other has all of its own", || async { (received.lock().unwrap().len() == 20).then_some(()) }).await;
    let over = "select count(*) from webhook_deliveries where last_error is not null";
    assert_eq!((asked.load(Ordering::SeqCst), app.count(over).await), (2, 0), "the slow ones were waited for, or more than two were asked");
}

/// Its owner may have forgotten it; it is told nothing more until some of that has come to an end.
#[tokio::test]
async fn what_is_written_to_an_endpoint_for_which_a_thousand_messages_wait_is_listed_as_failed() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let (ada, client) = owner(&app);
    client.post("/v1/webhook-endpoints", &json!({"url": "http://127.0.0.1:9/hook"})).await.expect(201);
    app.as_owner(
        "insert into webhook_deliveries (id, endpoint_id, organization_id, message_id, kind, payload, state, next_attempt_at, created_at)
         select gen_random_uuid(), id, organization_id, n::text, 'test', '{}', 'waiting', '9999-01-01', created_at - interval '1 hour'
         from webhook_endpoints, generate_series(1, 999) n",
    )
    .await;
    let counted = app.metric("webhook_deliveries_failed_total").await;
    // One more fits.
    write(&app, ada, 2).await;
    let full = "select count(*) from webhook_deliveries where state = 'failed' and attempts = 0 and last_error like 'too many%'";
    assert_eq!((app.count(full).await, app.count("select count(*) from webhook_deliveries").await), (1, 1_001));
    assert!(app.metric("webhook_deliveries_failed_total").await >= counted + 1.0);
    let (state, failed) = (json!("failed"), client.get("/v1/webhook-deliveries").await.json["data"].clone());
    assert!(failed.as_array().unwrap().iter().any(|listed| listed["state"] == state && listed["attempts"] == 0));
}

#[tokio::test]
async fn an_endpoint_that_is_deleted_gets_nothing_that_waited_for_it() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let (ada, client) = owner(&app);
    let (url, received) = receiver(100).await;
    let endpoint = client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201).string("id");
    client.post("/v1/budgets", &budget(&json!({"thresholds": [50]}))).await.expect(201);
    spend(&app, ada).await;
    evaluate_all(&app.state()).await.unwrap();
    eventually("the first attempt is refused", || async {
        (client.get("/v1/webhook-deliveries").await.json["data"][0]["last_status"].is_number()).then_some(())
    })
    .await;
    client.delete(&format!("/v1/webhook-endpoints/{endpoint}")).await.expect(204);
    let attempts = received.lock().unwrap().len();
    app.turn.advance(Duration::from_hours(1));
    assert!(!billing_service::budgets::webhooks::sender::step(&app.state()).await.unwrap(), "there was something to send");
    assert_eq!(received.lock().unwrap().len(), attempts);
    let delivery = client.get("/v1/webhook-deliveries").await.json["data"][0].clone();
    assert_eq!((&delivery["state"], &delivery["last_error"]), (&json!("failed"), &json!("the endpoint was deleted")));
}

#[tokio::test]
async fn nothing_is_sent_to_our_own_network() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    for url in ["https://169.254.169.254/latest", "http://example.com/hook", "https://127.0.0.1/", "https://[::ffff:10.0.0.1]/"] {
        client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(422);
    }
    // A name is judged when it is resolved, each time: it may have been another before.
    client.post("/v1/webhook-endpoints", &json!({"url": "https://localhost/hook"})).await.expect(201);
    client.post("/v1/budgets", &budget(&json!({"thresholds": [50]}))).await.expect(201);
    spend(&app, ada).await;
    evaluate_all(&app.state()).await.unwrap();
    let error = eventually("the attempt is refused", || async {
        client.get("/v1/webhook-deliveries").await.json["data"][0]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(error, "the host is not on the public internet");
}

/// Nobody has checked where that is: it may be our own network.
#[tokio::test]
async fn an_endpoint_that_sends_us_on_to_another_address_is_not_followed_there() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let (ada, client) = owner(&app);
    let (elsewhere, received) = receiver(0).await;
    let url = redirecting(elsewhere).await;
    client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    write(&app, ada, 1).await;
    let delivery = eventually("it is answered", || async {
        let delivery = client.get("/v1/webhook-deliveries").await.expect(200).json["data"][0].clone();
        delivery["last_status"].is_number().then_some(delivery)
    })
    .await;
    assert_eq!((&delivery["last_status"], &delivery["state"]), (&json!(307), &json!("waiting")));
    assert!(received.lock().unwrap().is_empty(), "it was followed");
}
