//! Access tokens as the routes judge them. Everything wrong here is signed by the key that signs: only the check in question can
//! refuse it.

use std::time::Duration;

use super::app::{App, ISSUER, PASSWORD};
use super::forge::Forge;
use auth_service::tokens::{Keyring, Rotation};
use chrono::TimeDelta;
use serde_json::{Value, json};

/// An app, and what forges the tokens of a user of it.
async fn start() -> (App, Forge) {
    let app = App::start().await;
    app.sign_up("ada@example.com").await.expect(201);
    let token = app.log_in("ada@example.com", PASSWORD).await.expect(201).string("access_token");
    let forge = Forge::of(&app, &token).await;
    app.public.bearer(&token).get("/v1/me").await.expect(200);
    app.public.bearer(&forge.sign(&forge.header, &forge.claims)).get("/v1/me").await.expect(200);
    (app, forge)
}

async fn assert_refused(app: &App, token: &str, what: &str) {
    let answer = app.public.bearer(token).get("/v1/me").await;
    assert_eq!(answer.status, 401, "{what}: {}", answer.text);
}

/// [I-46] [I-47]
#[tokio::test]
async fn other_algorithms_types_keys_and_headers_are_refused_although_the_signature_is_right() {
    let (app, forge) = start().await;
    let next: String =
        sqlx::query_scalar("select kid from signing_keys where state = 'next'").fetch_one(&app.database.owner).await.unwrap();
    let mut wrong: Vec<(&str, Value)> = Vec::new();
    wrong.extend(["none", "HS256", "RS256", "ES256", "eddsa", "Ed25519"].map(|alg| ("alg", json!(alg))));
    wrong.extend(["JWT", "AT+JWT", "application/at+jwt", "client-authentication+jwt"].map(|typ| ("typ", json!(typ))));
    wrong.extend(["unknown", "", next.as_str(), "chat-service"].map(|kid| ("kid", json!(kid))));
    wrong.extend(["alg", "typ", "kid"].map(|name| (name, Value::Null)));
    wrong.extend([
        ("jku", json!("https://evil.example.com/jwks.json")),
        ("jwk", json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"})),
        ("x5u", json!("https://evil.example.com/cert.pem")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("other", json!(1)),
    ]);
    for (name, value) in wrong {
        let mut header = forge.header.clone();
        header[name] = value.clone();
        assert_refused(&app, &forge.sign(&header, &forge.claims), &format!("{name} is {value}")).await;
    }
    for name in ["alg", "typ", "kid"] {
        let mut header = forge.header.clone();
        header.as_object_mut().unwrap().remove(name);
        assert_refused(&app, &forge.sign(&header, &forge.claims), &format!("without {name}")).await;
    }
}

/// [I-47]
#[tokio::test]
async fn a_token_of_another_kind_is_no_access_token_and_the_reverse() {
    let (app, forge) = start().await;
    let refresh = app.log_in("ada@example.com", PASSWORD).await.expect(201).string("refresh_token");
    assert_refused(&app, &refresh, "a refresh token").await;
    assert_refused(&app, &app.assertion("chat-service", ISSUER), "an assertion").await;
    let service = app.service_token("auth-service", "api_keys:verify").await.expect(200).string("access_token");
    assert_refused(&app, &service, "a service's token").await;
    let access = forge.sign(&forge.header, &forge.claims);
    app.refresh(&access).await.expect(401);
    let body = json!({"client_assertion": access, "audience": "auth-service", "scope": "api_keys:verify"});
    app.private.post("/internal/v1/service-tokens", &body).await.expect(401);
    app.private.bearer(&access).post("/internal/v1/api-keys/verify", &json!({"key_sha256": "0".repeat(64)})).await.expect(401);
}

/// [I-48]
#[tokio::test]
async fn every_claim_is_required_with_its_type_and_names_us() {
    let (app, forge) = start().await;
    let names: Vec<String> = forge.claims.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names.len(), 11);
    for name in names {
        let mut missing = forge.claims.clone();
        missing.as_object_mut().unwrap().remove(&name);
        assert_refused(&app, &forge.sign(&forge.header, &missing), &format!("without {name}")).await;
        let right = &forge.claims[&name];
        let other = if right.is_string() { json!(app.clock.now().timestamp() + 300) } else { json!(right.to_string()) };
        for value in [other, Value::Null, json!(true), json!(1.5), json!([right]), json!({"0": right})] {
            let mut wrong = forge.claims.clone();
            wrong[&name] = value.clone();
            assert_refused(&app, &forge.sign(&forge.header, &wrong), &format!("{name} is {value}")).await;
        }
    }
    for (name, value) in [
        ("iss", json!("https://auth.example.com/")),
        ("aud", json!("auth-service")),
        ("sub", json!("usr_0197f0a0000070008000000000000001")),
        ("sid", json!("ses_0197f0a0000070008000000000000001")),
    ] {
        let mut wrong = forge.claims.clone();
        wrong[name] = value.clone();
        assert_refused(&app, &forge.sign(&forge.header, &wrong), &format!("{name} is {value}")).await;
    }
}

/// [I-49]
#[tokio::test]
async fn a_token_that_was_changed_at_any_position_is_refused() {
    let (app, forge) = start().await;
    let token = forge.sign(&forge.header, &forge.claims);
    for position in 0..token.len() {
        let other = if &token[position..=position] == "A" { "B" } else { "A" };
        let changed = format!("{}{other}{}", &token[..position], &token[position + 1..]);
        assert_refused(&app, &changed, &format!("changed at {position}")).await;
        if position > 0 {
            assert_refused(&app, &token[..position], &format!("cut at {position}")).await;
        }
    }
    let swapped: String = token.chars().map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
    for (changed, what) in
        [(format!("{token}="), "padded"), (format!("{token}."), "a part more"), (swapped, "other case"), ("x".repeat(5000), "too long")]
    {
        assert_refused(&app, &changed, what).await;
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

/// [I-50]
#[tokio::test]
async fn two_keys_are_published_and_a_rotation_turns_them_without_logging_anybody_out() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let published = app.public.get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(published.json["keys"].as_array().unwrap().len(), 2);
    assert!(published.header("cache-control").contains("max-age=300"));
    app.turn.advance(PUBLISHED_BEFORE);
    assert_eq!(rotate(&app, false).await, Rotation::Done);
    let keyring = Keyring::load(&app.database.pool, &app.config.secret, &app.clock, &app.random).await.unwrap();
    let kids = |set: &Value| set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let after = kids(&serde_json::to_value(keyring.published()).unwrap());
    assert_eq!(after.len(), 3, "former, current and next");
    assert!(kids(&published.json).iter().all(|kid| after.contains(kid)));
    client.get("/v1/me").await.expect(200);
}

/// [I-50]
#[tokio::test]
async fn a_key_that_verifiers_may_not_know_yet_signs_only_when_that_is_forced() {
    let app = App::start().await;
    app.public.get("/.well-known/jwks.json").await.expect(200);
    let first = signing(&app).await;
    app.turn.advance(Duration::from_secs(309));
    assert_eq!(rotate(&app, false).await, Rotation::TooEarly(TimeDelta::seconds(1)));
    assert_eq!(signing(&app).await, first);
    app.turn.advance(Duration::from_secs(1));
    let both = tokio::join!(rotate(&app, false), rotate(&app, false));
    let mut both = [both.0, both.1];
    both.sort_by_key(|rotation| *rotation != Rotation::Done);
    assert_eq!(both, [Rotation::Done, Rotation::TooEarly(TimeDelta::seconds(310))], "two operators at the same moment");
    let second = signing(&app).await;
    assert_ne!(second, first);
    assert_eq!(rotate(&app, true).await, Rotation::Done);
    assert_ne!(signing(&app).await, second);
}

/// As long as verifiers cache keys, and as our own processes do before.
const PUBLISHED_BEFORE: Duration = Duration::from_secs(310);

async fn rotate(app: &App, force: bool) -> Rotation {
    auth_service::tokens::rotate(&app.database.pool, &app.config.secret, &app.clock, &app.random, force).await.unwrap()
}

async fn signing(app: &App) -> String {
    sqlx::query_scalar("select kid from signing_keys where state = 'current'").fetch_one(&app.database.owner).await.unwrap()
}
