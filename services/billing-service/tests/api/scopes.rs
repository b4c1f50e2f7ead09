//! Who may do what: every operation wants a credential with its scope, and one organization's is nothing to another.

use billing_service::budgets::webhooks::deliveries::enqueue;
use contracts::billing::{SCOPE_ADMIN_READ, SCOPE_ADMIN_WRITE, SCOPE_MARGIN_READ, SCOPE_RESERVATIONS_WRITE};
use contracts::entitlements::SCOPE_ENTITLEMENTS_READ;
use contracts::leases::SCOPE_LEASES_WRITE;
use http::Method;
use identity::{Scope, Scopes};
use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::{Answer, TestClient};

use super::app::App;
use super::budgets::{budget, owner};
use super::catalog::example;
use super::selling::sell;
use super::subscriptions::{paid, subscribe};

/// A method and a path as the document has it.
type Operation = (Method, String);

const SERVICE_SCOPES: [&str; 7] = [
    SCOPE_LEASES_WRITE,
    SCOPE_RESERVATIONS_WRITE,
    SCOPE_ENTITLEMENTS_READ,
    SCOPE_ADMIN_READ,
    SCOPE_ADMIN_WRITE,
    SCOPE_MARGIN_READ,
    "usage:write",
];

/// All scopes of services but one.
fn all_but(needed: &str) -> String {
    SERVICE_SCOPES.into_iter().filter(|scope| *scope != needed).collect::<Vec<_>>().join(" ")
}

fn meter() -> Value {
    json!({"name": "jobs", "event_type": "job.done", "aggregation": "count"})
}

/// The operations of the document that want a credential, and those that do not.
fn operations() -> (Vec<Operation>, Vec<Operation>) {
    let document: Value = serde_json::from_str(&billing_service::router::openapi()).unwrap();
    let (mut closed, mut open) = (Vec::new(), Vec::new());
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let list = if operation["security"] == json!([{"bearer": []}]) { &mut closed } else { &mut open };
            list.push((method.to_uppercase().parse::<Method>().unwrap(), path.clone()));
        }
    }
    (closed, open)
}

/// The scope that an operation needs.
fn needed(method: &Method, path: &str) -> Scope {
    match (method.as_str(), path) {
        // A look at what a change would cost changes nothing.
        ("GET", _) | ("POST", "/v1/subscription/preview") => Scope::BillingRead,
        ("POST", "/v1/meters") => Scope::MetersWrite,
        ("POST", "/v1/usage-events") => Scope::UsageWrite,
        _ => Scope::BillingWrite,
    }
}

/// What an operation takes. Its scope is looked at when this was understood: without it the refusal would be another one.
fn body(method: &Method, path: &str) -> Option<Value> {
    let subscription = "sub_0197f0a0000070008000000000000001";
    Some(match (method.as_str(), path) {
        ("PUT", "/v1/auto-top-up") => {
            json!({"enabled": false, "threshold_micros": 0, "amount_micros": 1_000_000, "monthly_cap_micros": 1_000_000})
        }
        ("POST", "/v1/budgets") => budget(&json!({})),
        ("PATCH", "/v1/budgets/{id}") => json!({"name": "another"}),
        ("POST", "/v1/checkout-sessions") => {
            let url = "https://shop.example.com/";
            json!({"item": "credit_pack", "credit_pack": "small", "currency": "USD", "success_url": url, "cancel_url": url})
        }
        ("POST", "/v1/meters") => meter(),
        ("POST", "/v1/portal-sessions") => json!({"return_url": "https://shop.example.com/"}),
        ("POST", "/v1/subscription/changes") => json!({"subscription_id": subscription, "change": {"kind": "cancel"}}),
        ("POST", "/v1/subscription/preview") => json!({"subscription_id": subscription, "change": "cancel"}),
        ("POST", "/v1/usage-events") => json!({"specversion": "1.0", "id": "1", "source": "/a", "type": "job.done"}),
        ("POST", "/v1/webhook-endpoints") => json!({"url": "https://example.com/hook"}),
        ("POST", "/v1/webhook-endpoints/{id}/rotate-secret") => json!({}),
        _ => return None,
    })
}

/// A path with the id of nothing, and with the query that it needs.
fn target(app: &App, path: &str) -> String {
    let prefix = match path.split('/').nth(2) {
        Some("budgets") => "bud",
        Some("meters") => "mtr",
        Some("webhook-deliveries") => "whd",
        Some("webhook-endpoints") => "whe",
        _ => "",
    };
    let query = match path {
        "/v1/meters/{id}/usage" => "?window=hour&from=2030-01-01T00:00:00Z&to=2030-01-01T01:00:00Z",
        "/v1/statements" => "?from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z",
        "/v1/usage/export" => "?format=csv&from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z",
        _ => "",
    };
    let nothing = format!("{prefix}_{}", app.random.uuid_v7(&app.clock).simple());
    format!("{}{query}", path.replace("{id}", &nothing))
}

/// What a list holds.
async fn data(client: &TestClient, path: &str) -> Value {
    client.get(path).await.expect(200).json["data"].clone()
}

async fn ask(app: &App, client: &TestClient, operation: &Operation) -> Answer {
    let (method, path) = operation;
    client.send(method.clone(), &target(app, path), body(method, path).as_ref().map(ToString::to_string)).await
}

/// What credentials may have without a scope: little, what keys have when nothing is said, and everything else.
fn without(scope: Scope) -> Vec<Scopes> {
    let all_others: Scopes = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
    let some = [Scopes::known(["chat:write"]), Scopes::api_key_default(), all_others];
    some.into_iter().filter(|scopes| !scopes.contains(scope)).collect()
}

/// [B-79] Also those that are yet to be written: they are enumerated.
#[tokio::test]
async fn every_operation_wants_a_credential_and_of_its_scopes_the_one_for_it() {
    let app = App::start().await;
    let (closed, open) = operations();
    // Stripe signs what it sends.
    assert_eq!(open, [(Method::POST, "/stripe/webhooks".to_owned())]);
    assert!(closed.len() > 30, "{closed:?}");
    for (method, path) in [
        (Method::GET, "/v1/balance"),
        (Method::GET, "/v1/webhook-deliveries"),
        (Method::PUT, "/v1/auto-top-up"),
        (Method::DELETE, "/v1/budgets/{id}"),
        (Method::POST, "/v1/subscription/changes"),
        (Method::POST, "/v1/webhook-deliveries/{id}/replay"),
    ] {
        assert!(closed.contains(&(method, path.to_owned())), "{path}");
    }
    let (ada, _) = app.organization();
    let strangers = [app.public.clone(), app.public.bearer("tvk_test_nonsense")];
    for operation in &closed {
        let (method, path) = operation;
        for stranger in &strangers {
            let answer = ask(&app, stranger, operation).await;
            assert_eq!(answer.status.as_u16(), 401, "{method} {path}: {}", answer.text);
        }
        let scope = needed(method, path);
        for scopes in without(scope) {
            let answer = ask(&app, &app.key_of(ada, scopes.clone()), operation).await;
            assert_eq!(answer.status.as_u16(), 403, "{method} {path} with {scopes}: {}", answer.text);
        }
        // And nothing else was missing.
        let answer = ask(&app, &app.key_of(ada, [scope].into_iter().collect()), operation).await;
        assert!(![401, 403].contains(&answer.status.as_u16()), "{method} {path}: {}", answer.text);
    }
}

/// [B-79]
#[tokio::test]
async fn a_service_without_the_scope_neither_holds_nor_settles_nor_gives_back_money() {
    let app = App::start().await;
    let (ada, _) = app.organization();
    let (settled, voided) = (app.hold(ada, 100, 100).await, app.hold(ada, 100, 100).await);
    let event = serde_json::to_value(app.used(ada).await).unwrap();
    let calls = [
        ("/internal/v1/settlements".to_owned(), event, SCOPE_LEASES_WRITE),
        ("/internal/v1/reservations".to_owned(), app.reservation(ada, app.request(), 10, 10), SCOPE_RESERVATIONS_WRITE),
        (format!("/internal/v1/reservations/{settled}/settle"), app.usage(10, 10), SCOPE_RESERVATIONS_WRITE),
        (format!("/internal/v1/reservations/{voided}/void"), json!({"reason": "a test"}), SCOPE_RESERVATIONS_WRITE),
    ];
    let stranger = TestClient::new(app.private.address());
    let posted = "select count(*) from ledger_transactions";
    let before = app.count(posted).await;
    for (path, body, needed) in &calls {
        let answer = app.service(&all_but(needed)).post(path, body).await;
        assert_eq!(answer.status.as_u16(), 403, "{path}: {}", answer.text);
        let answer = stranger.post(path, body).await;
        assert_eq!(answer.status.as_u16(), 401, "{path}: {}", answer.text);
    }
    assert_eq!((app.count(posted).await, app.count("select count(*) from usage_events").await), (before, 0), "something was written");
    // The same with that scope alone: nothing else was missing.
    for (path, body, needed) in &calls {
        let answer = app.service(needed).post(path, body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
    }
    assert_eq!(app.count("select count(*) from usage_events").await, 2);
    app.assert_clean().await;
}

/// [B-79] It tells what is sold and at which prices, and nobody need be named for it.
#[tokio::test]
async fn what_a_catalogue_or_a_price_list_would_change_is_told_to_operators_alone() {
    let app = App::start().await;
    for (path, body) in [("/v1/admin/catalog", json!({"catalog": "format: 1"})), ("/v1/admin/rates/imports", json!({"list": "{}"}))] {
        app.service(&all_but(SCOPE_ADMIN_READ)).post(path, &body).await.expect(403);
        TestClient::new(app.private.address()).post(path, &body).await.expect(401);
        let read = app.service(SCOPE_ADMIN_READ).post(path, &body).await;
        assert!(![401, 403].contains(&read.status.as_u16()), "{path}: {}", read.text);
    }
}

/// [B-79]
#[tokio::test]
async fn what_an_organization_is_sent_is_nothing_that_another_sees_sends_again_or_ends() {
    let app = App::start().await;
    let ((ada, hers), (_, eve)) = (owner(&app), owner(&app));
    // Nothing is sent to our own network: it is tried once, and waits while the clock stands.
    let new = json!({"url": "https://localhost/hook"});
    let endpoint = hers.post("/v1/webhook-endpoints", &new).await.expect(201);
    let state = app.state();
    let mut transaction = state.pool.begin().await.unwrap();
    enqueue(&state, &mut transaction, ada, "one", "test", &json!({})).await.unwrap();
    transaction.commit().await.unwrap();
    let tried = eventually("it was tried", || async {
        let listed = data(&hers, "/v1/webhook-deliveries").await;
        listed[0]["last_error"].is_string().then_some(listed)
    })
    .await;
    assert_eq!((tried.as_array().unwrap().len(), &tried[0]["state"], &tried[0]["attempts"]), (1, &json!("waiting"), &json!(1)));
    for path in ["/v1/webhook-deliveries", "/v1/webhook-endpoints"] {
        assert_eq!(data(&eve, path).await, json!([]), "{path}");
    }
    let replay = format!("/v1/webhook-deliveries/{}/replay", tried[0]["id"].as_str().unwrap());
    let path = format!("/v1/webhook-endpoints/{}", endpoint.string("id"));
    eve.post(&replay, &json!({})).await.expect(404);
    eve.post(&format!("{path}/rotate-secret"), &json!({"former_for_seconds": 0})).await.expect(404);
    eve.delete(&path).await.expect(404);
    assert_eq!(data(&hers, "/v1/webhook-deliveries").await, tried);
    assert_eq!(app.count("select count(*) from webhook_deliveries where replayed_at is not null").await, 0);
    let known = hers.post("/v1/webhook-endpoints", &new).await.expect(201);
    assert_eq!(known.json, endpoint.json, "it ended, or has another secret");
    // All of that is there for who owns it.
    hers.send(Method::POST, &replay, None).await.expect(202);
    hers.delete(&path).await.expect(204);
}

/// [B-51] [B-79]
#[tokio::test]
async fn one_idempotency_key_of_two_organizations_is_two_calls() {
    let app = App::start().await;
    let [ada, eve] = [owner(&app), owner(&app)].map(|(_, client)| client.header("idempotency-key", "one"));
    for (path, body) in [("/v1/budgets", budget(&json!({}))), ("/v1/meters", meter())] {
        let (hers, others) = (ada.post(path, &body).await.expect(201), eve.post(path, &body).await.expect(201));
        assert_ne!(hers.string("id"), others.string("id"), "{path}");
        for (client, made) in [(&ada, &hers), (&eve, &others)] {
            let listed = data(client, path).await;
            let ids: Vec<&Value> = listed.as_array().unwrap().iter().map(|one| &one["id"]).collect();
            assert_eq!(ids, [&made.json["id"]], "{path}");
        }
    }
}

/// [B-51] [B-79] Else the answer that was recorded for one would be shown to another.
#[tokio::test]
async fn one_idempotency_key_and_one_change_of_a_subscription_from_another_organization_is_another_call() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let mut calls = Vec::new();
    for (organization, client) in [owner(&app), owner(&app)] {
        let begun = subscribe(&app, organization, "team", "USD").await.unwrap();
        paid(&app, organization, begun.id).await;
        let cancel = json!({"subscription_id": begun.id, "change": {"kind": "cancel"}});
        calls.push((client.header("idempotency-key", "one"), cancel));
    }
    let ((ada, of_ada), (eve, of_eve)) = (&calls[0], &calls[1]);
    let path = "/v1/subscription/changes";
    let done = ada.post(path, of_ada).await.expect(200);
    assert_eq!(ada.post(path, of_ada).await.expect(200).json, done.json);
    eve.post(path, of_ada).await.expect(404);
    assert_ne!(eve.post(path, of_eve).await.expect(200).string("id"), done.string("id"));
}
