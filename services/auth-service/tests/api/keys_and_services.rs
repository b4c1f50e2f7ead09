//! API keys, services' credentials, tokens, and what is published of their keys.

use std::time::Duration;

use super::app::{App, ISSUER, PASSWORD};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use futures::future::join_all;
use serde_json::{Value, json};
use testkit::logs::Logs;

/// [I-70]
#[tokio::test]
async fn a_key_is_shown_once_and_later_only_its_prefix_and_last_four() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let made = client.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201);
    let key = made.string("key");
    let listed = client.get("/v1/api-keys").await.expect(200);
    assert!(!listed.text.contains(&key[12..]), "the key is in the list");
    let row = &listed.json["data"][0];
    assert!(key.starts_with(row["prefix"].as_str().unwrap()) && key.ends_with(row["last_four"].as_str().unwrap()));
    assert_eq!(listed.json["next_cursor"], Value::Null);
    assert_eq!(app.verify(&key).await.json["api_key"]["api_key_id"], made.json["id"]);
}

/// [B-51] [I-70]
#[tokio::test]
async fn a_repeated_call_shows_the_same_key_again_and_makes_no_other() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let repeated = client.header("idempotency-key", "k1");
    let body = json!({"name": "ci"});
    let answers = join_all((0..8).map(|_| repeated.post("/v1/api-keys", &body))).await;
    let keys: std::collections::BTreeSet<String> = answers.into_iter().map(|answer| answer.expect(201).string("key")).collect();
    assert_eq!((keys.len(), app.count("select count(*) from api_keys").await), (1, 1));
    let key = keys.into_iter().next().unwrap();
    app.public.bearer(&key).get("/v1/me").await.expect(200);
    assert_eq!(repeated.post("/v1/api-keys", &json!({"name": "other"})).await.expect(422).json["code"], "idempotency_key_reused");
    // Somebody else's call with the same key is another call, and a refusal does not burn it.
    let (eve, _) = app.session("eve@example.com").await;
    let eve = eve.header("idempotency-key", "k1");
    eve.post("/v1/api-keys", &json!({"name": ""})).await.expect(422);
    assert_ne!(eve.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201).string("key"), key);
    let recorded: String = sqlx::query_scalar("select string_agg(encode(body, 'escape'), ' ') from _idempotency")
        .fetch_one(&app.database.owner)
        .await
        .unwrap();
    assert!(recorded.contains("last_four") && !recorded.contains(&key), "the key was recorded");
}

/// [I-71]
#[tokio::test]
async fn a_key_never_may_more_than_its_maker_and_ends_at_its_time() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let maker = client.post("/v1/api-keys", &json!({"name": "maker", "scopes": ["api_keys:write", "chat:write"]})).await.expect(201);
    let maker = app.public.bearer(&maker.string("key"));
    maker.post("/v1/api-keys", &json!({"name": "fine", "scopes": ["chat:write"]})).await.expect(201);
    let refused = maker.post("/v1/api-keys", &json!({"name": "more", "scopes": ["billing:read"]})).await.expect(403);
    assert_eq!(refused.json["errors"][0]["field"], "scopes");
    let end = (app.clock.now() + chrono::TimeDelta::hours(1)).to_rfc3339();
    let short = client.post("/v1/api-keys", &json!({"name": "short", "expires_at": end})).await.expect(201).string("key");
    app.turn.advance(Duration::from_secs(3599));
    assert!(app.verify(&short).await.json["api_key"].is_object());
    app.turn.advance(Duration::from_secs(1));
    assert_eq!(app.verify(&short).await.json["api_key"], Value::Null, "usable at the instant of its end");
}

/// [I-71]
#[tokio::test]
async fn the_last_use_is_written_beside_the_requests() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let key = client.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201).string("key");
    for _ in 0..10 {
        app.verify(&key).await;
    }
    testkit::eventually("the last use", || async {
        (!client.get("/v1/api-keys").await.json["data"][0]["last_used_at"].is_null()).then_some(())
    })
    .await;
}

/// [I-72]
#[tokio::test]
async fn a_key_cannot_be_made_for_somebody_else() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    for field in ["organization_id", "user_id", "created_by"] {
        client.post("/v1/api-keys", &json!({"name": "x", field: "org_0197f0a0000070008000000000000001"})).await.expect(422);
    }
    app.public.post("/v1/api-keys", &json!({"name": "x"})).await.expect(401);
}

/// [I-73]
#[tokio::test]
async fn another_organizations_key_is_not_there() {
    let app = App::start().await;
    let (ada, _) = app.session("ada@example.com").await;
    let (eve, _) = app.session("eve@example.com").await;
    let key = ada.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201);
    assert_eq!(eve.get("/v1/api-keys").await.expect(200).json["data"], json!([]));
    eve.delete(&format!("/v1/api-keys/{}", key.string("id"))).await.expect(404);
    eve.delete("/v1/api-keys/org_0197f0a0000070008000000000000001").await.expect(404);
    assert!(app.verify(&key.string("key")).await.json["api_key"].is_object());
}

#[tokio::test]
async fn a_revoked_key_is_gone_and_its_revocation_is_published() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let made = client.post("/v1/api-keys", &json!({"name": "ci", "scopes": ["api_keys:read"]})).await.expect(201);
    let with_key = app.public.bearer(&made.string("key"));
    with_key.get("/v1/api-keys").await.expect(200);
    client.delete(&format!("/v1/api-keys/{}", made.string("id"))).await.expect(204);
    testkit::eventually("the refusal of the key", || async { (with_key.get("/v1/api-keys").await.status == 401).then_some(()) }).await;
    assert_eq!(app.count("select count(*) from _outbox where kind = 'api_key.revoked'").await, 1);
    client.delete(&format!("/v1/api-keys/{}", made.string("id"))).await.expect(404);
}

/// [I-78]
#[tokio::test]
async fn a_list_goes_on_by_its_own_cursor_only() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    join_all((0..51).map(|n| {
        let client = client.clone();
        async move { client.post("/v1/api-keys", &json!({"name": format!("k{n}")})).await.expect(201) }
    }))
    .await;
    let first = client.get("/v1/api-keys").await.expect(200);
    assert_eq!(first.json["data"].as_array().unwrap().len(), 50);
    let cursor = first.string("next_cursor");
    let second = client.get(&format!("/v1/api-keys?cursor={cursor}")).await.expect(200);
    assert_eq!((second.json["data"].as_array().unwrap().len(), &second.json["next_cursor"]), (1, &Value::Null));
    for wrong in ["x", "AAAA", &cursor[1..], &format!("{cursor}A")] {
        assert_eq!(client.get(&format!("/v1/api-keys?cursor={wrong}")).await.expect(400).json["code"], "invalid_cursor");
    }
    client.get("/v1/api-keys?limit=1").await.expect(400);
}

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

/// A token with one part replaced.
fn with_part(token: &str, part: usize, value: &str) -> String {
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[part] = value;
    parts.join(".")
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// [I-46] [I-47] [I-49]
#[tokio::test]
async fn other_algorithms_types_and_any_change_of_a_token_are_refused() {
    let app = App::start().await;
    app.sign_up("ada@example.com").await.expect(201);
    let token = app.log_in("ada@example.com", PASSWORD).await.expect(201).string("access_token");
    app.public.bearer(&token).get("/v1/me").await.expect(200);
    let kid = app.public.get("/.well-known/jwks.json").await.expect(200).json["keys"][0]["kid"].clone();
    let mut wrong: Vec<String> = [
        json!({"alg": "none", "typ": "at+jwt", "kid": kid}),
        json!({"alg": "HS256", "typ": "at+jwt", "kid": kid}),
        json!({"alg": "EdDSA", "typ": "JWT", "kid": kid}),
        json!({"alg": "EdDSA", "typ": "client-authentication+jwt", "kid": kid}),
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "unknown"}),
        json!({"alg": "EdDSA", "typ": "at+jwt"}),
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid, "jku": "https://evil.example.com"}),
    ]
    .iter()
    .map(|header| with_part(&token, 0, &encoded(header)))
    .collect();
    wrong.extend([with_part(&token, 2, ""), format!("{token}="), format!("{token}."), token.to_uppercase(), "x".repeat(5000)]);
    wrong.extend((0..token.len()).step_by(37).map(|length| token[..length].to_owned()));
    wrong.extend((0..token.len()).step_by(11).map(|position| {
        let other = if &token[position..=position] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &token[..position], &token[position + 1..])
    }));
    for wrong in wrong.iter().filter(|wrong| **wrong != token && !wrong.is_empty()) {
        app.public.bearer(wrong).get("/v1/me").await.expect(401);
    }
}

/// [I-48]
#[tokio::test]
async fn an_access_token_ends_after_ten_minutes() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    app.turn.advance(Duration::from_secs(599));
    client.get("/v1/me").await.expect(200);
    app.turn.advance(Duration::from_secs(1));
    client.get("/v1/me").await.expect(401);
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

#[tokio::test]
async fn two_keys_are_published_and_a_rotation_turns_them_without_logging_anybody_out() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let published = app.public.get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(published.json["keys"].as_array().unwrap().len(), 2);
    assert!(published.header("cache-control").contains("max-age=300"));
    let secrets = auth_service::secrets::Secrets::new(&app.config.secret).unwrap();
    auth_service::tokens::rotate(&app.database.pool, &secrets, &app.clock, &app.random).await.unwrap();
    let keyring = auth_service::tokens::Keyring::load(&app.database.pool, &secrets, &app.clock, &app.random).await.unwrap();
    let kids = |set: &Value| set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let after = kids(&serde_json::to_value(keyring.published()).unwrap());
    assert_eq!(after.len(), 3, "former, current and next");
    assert!(kids(&published.json).iter().all(|kid| after.contains(kid)));
    client.get("/v1/me").await.expect(200);
}

/// [I-78]
#[tokio::test]
async fn bodies_and_headers_that_are_too_large_are_refused() {
    let app = App::start().await;
    let large = json!({"email": "a".repeat(2 << 20), "password": PASSWORD, "name": "Ada"});
    assert_eq!(app.public.post("/v1/accounts", &large).await.expect(413).json["code"], "payload_too_large");
    app.public.header("x-large", "a".repeat(64 * 1024)).get("/health").await.expect(431);
}

/// [I-79] [I-80]
#[tokio::test]
async fn no_secret_is_in_any_log_line_and_failures_are_audited() {
    let logs = Logs::capture();
    let app = App::start().await;
    let (client, refresh) = app.session("canary@example.com").await;
    let key = client.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201).string("key");
    let token = app.log_in("canary@example.com", PASSWORD).await.expect(201).string("access_token");
    app.log_in("canary@example.com", "canary wrong password").await.expect(401);
    app.log_in("a\r\nb@example.com", PASSWORD).await.expect(401);
    let successor = app.refresh(&refresh).await.expect(200).string("refresh_token");
    app.public.bearer(&key).get("/v1/me").await.expect(200);
    let text = logs.text();
    assert!(text.contains("session.create"), "nothing was logged");
    for secret in [PASSWORD, "canary wrong password", &refresh, &successor, &key, &token] {
        assert!(!text.contains(secret), "a secret is in the log");
    }
    let failures = "select count(*) from audit_events where action = 'session.create' and outcome = 'invalid_credentials'";
    assert_eq!(app.count(failures).await, 2);
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
