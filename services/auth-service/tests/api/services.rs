//! Services' credentials, the first administrator, and what strangers cannot reach.

use std::time::Duration;

use super::app::{App, ISSUER, PASSWORD};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use futures::future::join_all;
use serde_json::{Value, json};

/// [I-76]
#[tokio::test]
async fn a_service_gets_short_tokens_for_what_it_may_call_and_each_assertion_counts_once() {
    let app = App::start().await;
    app.service_token("auth-service", "api_keys:verify").await.expect(200);
    app.service_token("billing-service", "api_keys:verify").await.expect(403);
    app.service_token("chat-service", "anything").await.expect(403);
    let body = json!({"client_assertion": app.assertion("chat-service", ISSUER), "audience": "auth-service", "scope": "api_keys:verify"});
    let answers = join_all((0..16).map(|_| app.private.post("/internal/v1/service-tokens", &body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "an assertion was taken more than once");
    for (name, audience) in [("billing-service", ISSUER), ("chat-service", "https://other.example.com")] {
        let body = json!({"client_assertion": app.assertion(name, audience), "audience": "auth-service", "scope": "api_keys:verify"});
        app.private.post("/internal/v1/service-tokens", &body).await.expect(401);
    }
}

/// [I-76] An operator says which, by configuration.
#[tokio::test]
async fn a_program_of_an_operator_gets_tokens_for_what_was_granted_to_it_and_its_key_for_no_other_name() {
    let app = App::start().await;
    let ask = async |name: &str, audience: &str, scope: &str| {
        let assertion = app.assertion_by(&app.console_key, name, ISSUER);
        let body = json!({"client_assertion": assertion, "audience": audience, "scope": scope});
        app.private.post("/internal/v1/service-tokens", &body).await
    };
    for scope in ["billing:admin:read", "billing:admin:read billing:admin:write"] {
        let token = ask("console", "billing-service", scope).await.expect(200).string("access_token");
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!((&claims["sub"], &claims["aud"], &claims["scope"]), (&json!("console"), &json!("billing-service"), &json!(scope)));
    }
    for (audience, scope) in [("billing-service", "margin:read"), ("billing-service", "leases:write"), ("auth-service", "api_keys:verify")]
    {
        ask("console", audience, scope).await.expect(403);
    }
    ask("chat-service", "billing-service", "leases:write").await.expect(401);
    app.service_token("billing-service", "billing:admin:read").await.expect(403);
}

/// [I-76]
#[tokio::test]
async fn private_routes_refuse_users_and_are_not_on_the_public_listener() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let body = json!({"key_sha256": "0".repeat(64)});
    app.private.post("/internal/v1/api-keys/verify", &body).await.expect(401);
    let token = app.log_in("ada@example.com", PASSWORD).await.expect(201).string("access_token");
    app.private.bearer(&token).post("/internal/v1/api-keys/verify", &body).await.expect(401);
    client.post("/internal/v1/api-keys/verify", &body).await.expect(404);
    client.get("/metrics").await.expect(404);
    app.private.get("/metrics").await.expect(200);
}

/// [I-77]
#[tokio::test]
async fn there_is_no_account_before_somebody_signs_up() {
    let app = App::start().await;
    assert_eq!(app.count("select count(*) from users").await, 0);
    assert_eq!(app.count("select count(*) from bootstrap_tokens").await, 0);
}

/// [I-77]
#[tokio::test]
async fn the_first_administrator_is_made_once_with_a_token_that_ends() {
    let app = App::start().await;
    let bootstrap = || auth_service::administrators::bootstrap(&app.database.pool, &app.clock, &app.random);
    let make = |token: String, email: &str| {
        let body = json!({"bootstrap_token": token, "email": email, "password": PASSWORD, "name": "Ada"});
        let client = app.public.clone();
        async move { client.post("/v1/administrators", &body).await }
    };
    let over = bootstrap().await.unwrap();
    app.turn.advance(Duration::from_hours(1));
    assert_eq!(make(over, "ada@example.com").await.expect(401).json["code"], "invalid_bootstrap_token");
    let replaced = bootstrap().await.unwrap();
    let token = bootstrap().await.unwrap();
    make(replaced, "ada@example.com").await.expect(401);
    make("tvb_nonsense".into(), "ada@example.com").await.expect(401);
    app.sign_up("taken@example.com").await.expect(201);
    // A refusal uses nothing up.
    make(token.clone(), "taken@example.com").await.expect(409);
    make(token.clone(), "not an address").await.expect(422);
    let tries = join_all((0..8).map(|n| make(token.clone(), &format!("ada{n}@example.com")).boxed())).await;
    assert_eq!(tries.iter().filter(|answer| answer.status == 201).count(), 1);
    assert_eq!(app.count("select count(*) from users where administrator").await, 1);
    assert!(bootstrap().await.is_err(), "bootstrap worked twice");
    let (client, _) = app.session("eve@example.com").await;
    assert_eq!(client.get("/v1/me").await.expect(200).json["user"]["administrator"], false);
}

/// [I-78]
#[tokio::test]
async fn bodies_and_headers_that_are_too_large_are_refused() {
    let app = App::start().await;
    let large = json!({"email": "a".repeat(2 << 20), "password": PASSWORD, "name": "Ada"});
    assert_eq!(app.public.post("/v1/accounts", &large).await.expect(413).json["code"], "payload_too_large");
    app.public.header("x-large", "a".repeat(64 * 1024)).get("/health").await.expect(431);
}

#[tokio::test]
async fn the_running_role_owns_nothing_and_cannot_alter_or_drop() {
    let app = App::start().await;
    for statement in [
        "drop table users",
        "alter table users add column x text",
        "create table x (y int)",
        "delete from users",
        "truncate audit_events",
        "delete from audit_events",
    ] {
        let refused = sqlx::query(statement).execute(&app.database.pool).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
    }
}
