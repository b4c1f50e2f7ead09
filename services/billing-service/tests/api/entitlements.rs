//! What an organization may do, and how fast others hear that it is another.

use std::time::Duration;

use billing_service::subscriptions::command::Command;
use contracts::entitlements::{BILLING_STREAM, EntitlementsChanged};
use contracts::usage::UsageEvent;
use identity::{ApiKeyId, OrganizationId, Scopes, UserId};
use redis::streams::StreamRangeReply;
use serde_json::{Value, json};
use testkit::eventually::eventually;

use super::app::App;
use super::catalog::example;
use super::selling::sell;
use super::subscriptions::{does, paid, subscribe};

/// Of whom the stream says that he may do something else; nobody stands for everybody.
async fn told(app: &App) -> Vec<Option<OrganizationId>> {
    let mut connection = app.redis.redis.connection();
    let entries: StreamRangeReply = redis::cmd("XRANGE").arg(BILLING_STREAM).arg("-").arg("+").query_async(&mut connection).await.unwrap();
    let changes = entries.ids.iter().filter(|entry| entry.get::<String>("kind").as_deref() == Some(EntitlementsChanged::KIND));
    let read = |payload: String| serde_json::from_str::<EntitlementsChanged>(&payload).unwrap().organization_id;
    changes.map(|entry| read(entry.get("payload").unwrap())).collect()
}

#[tokio::test]
async fn without_a_catalogue_there_is_everything_the_wallet_pays_for() {
    let app = App::start().await;
    let (_, client) = app.organization();
    let entitlements = client.get("/v1/entitlements").await.expect(200).json;
    assert_eq!((&entitlements["plans"], &entitlements["models"], &entitlements["spend_limits"]), (&json!([]), &json!(null), &json!([])));
}

#[tokio::test]
async fn without_a_subscription_there_is_the_default_plan_and_with_one_what_it_gives() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, client) = app.organization();
    let free = client.get("/v1/entitlements").await.expect(200).json;
    assert_eq!((&free["plans"][0]["code"], &free["models"]), (&json!("free"), &json!(["sim-small"])));
    assert_eq!(
        free["spend_limits"][0],
        json!({"scope": "organization", "id": "", "period": "month", "limit_micros": 5_000_000, "currency": "USD"})
    );
    let subscription = subscribe(&app, ada, "team", "USD").await.unwrap();
    assert_eq!(client.get("/v1/entitlements").await.json["plans"][0]["code"], "free", "not paid yet");
    paid(&app, ada, subscription.id).await;
    let team = client.get("/v1/entitlements").await.expect(200).json;
    assert_eq!((&team["plans"][0]["code"], &team["models"], &team["requests_per_minute"]), (&json!("team"), &json!(null), &json!(3000)));
    assert!(team["version"].as_i64() > free["version"].as_i64());
    does(&app, ada, subscription.id, &Command::CancelNow).await.unwrap();
    assert_eq!(client.get("/v1/entitlements").await.json["plans"][0]["code"], "free");
}

#[tokio::test]
async fn a_change_is_told_on_the_stream_of_whom_it_concerns_or_of_everybody() {
    let app = App::start().await;
    sell(&app, &example()).await;
    eventually("everybody's is old", || async { (told(&app).await == [None]).then_some(()) }).await;
    let (ada, client) = app.organization();
    let subscription = subscribe(&app, ada, "team", "USD").await.unwrap();
    paid(&app, ada, subscription.id).await;
    eventually("hers is old", || async { told(&app).await[1..].contains(&Some(ada)).then_some(()) }).await;
    sell(&app, "format: 1").await;
    eventually("everybody's is old again", || async { (told(&app).await.last() == Some(&None)).then_some(()) }).await;
    assert_eq!(client.get("/v1/entitlements").await.json["plans"][0]["code"], "team", "who is there keeps what was agreed");
}

/// [B-79]
#[tokio::test]
async fn the_private_route_is_for_services_with_the_scope() {
    let app = App::start().await;
    let (ada, client) = app.organization();
    let path = format!("/internal/v1/entitlements/{ada}");
    app.private.get(&path).await.expect(403);
    client.get(&path).await.expect(404);
    let answered = app.service("entitlements:read").get(&path).await.expect(200);
    assert_eq!(answered.string("organization_id"), ada.to_string());
}

/// Whoever enforces a limit has not counted all of it: not what others spent, nor what was spent before there was the limit.
#[tokio::test]
async fn a_service_is_told_what_was_spent_of_limits_of_a_day_or_a_month_and_nobody_else_is() {
    let app = App::start().await;
    let ((ada, _), (eve, _)) = (app.organization(), app.organization());
    let (client, key, user) =
        (app.key_of(ada, Scopes::all()), ApiKeyId::new(&app.clock, &app.random), UserId::new(&app.clock, &app.random));
    let limits = [
        ("api_key", key.to_string(), "month", Some(150)),
        ("model", "sim-large".into(), "month", Some(450)),
        ("model", "sim-small".into(), "month", Some(0)),
        ("organization", String::new(), "day", Some(150)),
        ("organization", String::new(), "minute", None),
        ("organization", String::new(), "month", Some(450)),
        ("tag", "x".into(), "month", Some(150)),
        ("user", user.to_string(), "day", Some(150)),
        ("user", user.to_string(), "month", Some(300)),
    ];
    for (scope, id, period, _) in &limits {
        let body = json!({"name": "all", "scope": scope, "scope_id": id, "period": period, "limit_micros": 1_000_000, "currency": "USD",
                          "hard": true, "thresholds": []});
        client.post("/v1/budgets", &body).await.expect(201);
    }
    let spends = async |event: UsageEvent| {
        app.gateway.post("/internal/v1/settlements", &serde_json::to_value(&event).unwrap()).await.expect(200);
    };
    // On the last day of a month, on the first of the next, and on the second.
    app.turn.set("2030-01-31T23:59:59.999999Z".parse().unwrap());
    spends(UsageEvent { api_key_id: Some(key), tags: ["x".to_owned()].into(), ..app.used(ada).await }).await;
    app.turn.set("2030-02-01T00:00:00Z".parse().unwrap());
    spends(UsageEvent { api_key_id: Some(key), tags: ["x".to_owned()].into(), ..app.used(ada).await }).await;
    spends(UsageEvent { user_id: Some(user), ..app.used(ada).await }).await;
    app.turn.advance(Duration::from_hours(24));
    spends(UsageEvent { user_id: Some(user), ..app.used(ada).await }).await;
    spends(app.used(eve).await).await;
    let told = app.service("entitlements:read").get(&format!("/internal/v1/entitlements/{ada}")).await.expect(200).json;
    let told = told["spend_limits"].as_array().unwrap();
    assert_eq!(told.len(), limits.len());
    for (scope, id, period, spent) in &limits {
        let limit = told.iter().find(|limit| limit["scope"] == *scope && limit["id"] == **id && limit["period"] == *period).unwrap();
        let since = if *period == "day" { "2030-02-02T00:00:00Z" } else { "2030-02-01T00:00:00Z" };
        let expected = spent.map_or(Value::Null, |micros| json!({"since": since, "micros": micros}));
        assert_eq!(limit.get("spent").cloned().unwrap_or_default(), expected, "{scope} {id} {period}");
    }
    let public = client.get("/v1/entitlements").await.expect(200).json;
    assert!(public["spend_limits"].as_array().unwrap().iter().all(|limit| limit.get("spent").is_none()), "{public}");
}
