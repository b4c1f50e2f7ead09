//! Budgets: what they limit, what they tell, to whom and how often.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use billing_service::budgets::alerts::evaluate_all;
use billing_service::budgets::webhooks::signature::sign;
use chassis::SecretString;
use http::{HeaderMap, Method, StatusCode};
use identity::{OrganizationId, Scopes};
use serde_json::{Value, json};
use testkit::eventually::eventually;
use testkit::http::TestClient;

use super::app::App;

type Received = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// Somebody who receives messages, and refuses the first of them.
async fn receiver(refusals: usize) -> (String, Received) {
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
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, received)
}

/// An organization that may set budgets.
fn owner(app: &App) -> (OrganizationId, TestClient) {
    let (organization, _) = app.organization();
    (organization, app.key_of(organization, Scopes::all()))
}

fn budget(rest: &Value) -> Value {
    let mut body = json!({"name": "all", "scope": "organization", "period": "month", "limit_micros": 3000, "currency": "USD"});
    body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    body
}

/// Uses 1500 micro-units.
async fn spend(app: &App, organization: OrganizationId) {
    let hold = app.hold(organization, 100, 100).await;
    app.settle(&hold, &app.usage(100, 100)).await.expect(200);
}

#[tokio::test]
async fn a_hard_budget_is_a_limit_of_the_entitlements_until_it_is_soft_or_gone() {
    let app = App::start().await;
    let (_, client) = owner(&app);
    let made = client.post("/v1/budgets", &budget(&json!({"hard": true}))).await.expect(201);
    let limits = || async { client.get("/v1/entitlements").await.expect(200).json };
    let before = limits().await;
    assert_eq!(
        before["spend_limits"],
        json!([{"scope": "organization", "id": "", "period": "month", "limit_micros": 3000, "currency": "USD"}])
    );
    let path = format!("/v1/budgets/{}", made.string("id"));
    let changed = client.send(Method::PATCH, &path, Some(json!({"limit_micros": 4000}).to_string())).await.expect(200);
    assert_eq!((&changed.json["limit_micros"], &changed.json["name"]), (&json!(4000), &json!("all")));
    assert_eq!(limits().await["spend_limits"][0]["limit_micros"], 4000);
    assert!(limits().await["version"].as_i64() > before["version"].as_i64());
    client.send(Method::PATCH, &path, Some(json!({"hard": false}).to_string())).await.expect(200);
    assert_eq!(limits().await["spend_limits"], json!([]));
    client.delete(&path).await.expect(204);
    client.delete(&path).await.expect(404);
    assert_eq!(client.get("/v1/budgets").await.expect(200).json["data"], json!([]));
}

/// [B-51]
#[tokio::test]
async fn a_budget_that_is_made_twice_with_one_key_is_there_once() {
    let app = App::start().await;
    let (_, client) = owner(&app);
    let client = client.header("idempotency-key", "one");
    let first = client.post("/v1/budgets", &budget(&json!({}))).await.expect(201);
    let second = client.post("/v1/budgets", &budget(&json!({}))).await.expect(201);
    assert_eq!(first.json, second.json);
    assert_eq!(client.get("/v1/budgets").await.expect(200).json["data"].as_array().unwrap().len(), 1);
    client.post("/v1/budgets", &budget(&json!({"name": "other"}))).await.expect(422);
}

#[tokio::test]
async fn what_no_budget_can_be_is_refused_with_the_field() {
    let app = App::start().await;
    let (_, client) = owner(&app);
    let cases = [
        (json!({"limit_micros": 0}), "limit_micros"),
        (json!({"currency": "XXX"}), "currency"),
        (json!({"scope": "user", "scope_id": "somebody"}), "scope_id"),
        (json!({"scope_id": "usr_1"}), "scope_id"),
        (json!({"scope": "model"}), "scope_id"),
        (json!({"thresholds": [80, 50]}), "thresholds"),
        (json!({"scope": "tag", "scope_id": "x"}), "thresholds"),
        (json!({"name": ""}), "name"),
    ];
    for (wrong, field) in cases {
        let refused = client.post("/v1/budgets", &budget(&wrong)).await.expect(422);
        assert!(refused.text.contains(field), "{wrong}: {}", refused.text);
    }
}

/// [B-79]
#[tokio::test]
async fn budgets_and_endpoints_of_another_organization_do_not_exist() {
    let app = App::start().await;
    let ((_, ada), (_, eve)) = (owner(&app), owner(&app));
    let path = format!("/v1/budgets/{}", ada.post("/v1/budgets", &budget(&json!({}))).await.expect(201).string("id"));
    eve.delete(&path).await.expect(404);
    eve.send(Method::PATCH, &path, Some("{}".into())).await.expect(404);
    let endpoint = ada.post("/v1/webhook-endpoints", &json!({"url": "https://example.com/hook"})).await.expect(201).string("id");
    eve.delete(&format!("/v1/webhook-endpoints/{endpoint}")).await.expect(404);
    for list in ["/v1/budgets", "/v1/webhook-endpoints", "/v1/webhook-deliveries"] {
        assert_eq!(eve.get(list).await.expect(200).json["data"], json!([]), "{list}");
        app.public.get(list).await.expect(401);
    }
    let (_, reader) = app.organization();
    reader.post("/v1/budgets", &budget(&json!({}))).await.expect(403);
    reader.post("/v1/webhook-endpoints", &json!({"url": "https://example.com/hook"})).await.expect(403);
}

#[tokio::test]
async fn each_threshold_is_told_once_in_a_period_however_many_look() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    let (eve, _) = owner(&app);
    client.post("/v1/budgets", &budget(&json!({"period": "minute"}))).await.expect(201);
    spend(&app, eve).await;
    let state = app.state();
    assert_eq!(evaluate_all(&state).await.unwrap(), 0, "what others spend is not ours");
    spend(&app, ada).await;
    let looks = futures::future::join_all((0..16).map(|_| evaluate_all(&state))).await;
    assert!(looks.iter().all(Result::is_ok));
    assert_eq!(app.count("select count(*) from budget_alerts where threshold = 'percent:50'").await, 1);
    spend(&app, ada).await;
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts").await, 3);
    app.turn.advance(Duration::from_mins(1));
    spend(&app, ada).await;
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts").await, 4, "a new minute");
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
    client.post(&format!("/v1/webhook-deliveries/{}/replay", delivery["id"].as_str().unwrap()), &json!({})).await.expect(202);
    eventually("it is sent again", || async { (received.lock().unwrap().len() == 3).then_some(()) }).await;
    let secret: SecretString = endpoint.string("secret").into();
    for (headers, body) in received.lock().unwrap().iter() {
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(header("webhook-id"), delivery["message_id"].as_str().unwrap());
        let expected = sign(&secret, header("webhook-id"), header("webhook-timestamp").parse().unwrap(), body.as_bytes()).unwrap();
        assert_eq!(header("webhook-signature"), expected);
        let event: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&event["type"], &event["data"]["spent_micros"]), (&json!("budget.threshold_reached"), &json!(1500)));
    }
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

#[tokio::test]
async fn a_budget_of_a_model_tells_of_that_model_alone() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    for model in ["sim-large", "sim-small"] {
        client.post("/v1/budgets", &budget(&json!({"scope": "model", "scope_id": model, "thresholds": [50]}))).await.expect(201);
    }
    spend(&app, ada).await;
    assert_eq!(evaluate_all(&app.state()).await.unwrap(), 1);
}
