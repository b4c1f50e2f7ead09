//! Signing up, logging in, staying logged in, logging out.

use std::time::Duration;

use super::app::{App, PASSWORD};
use super::forge::part;
use futures::future::join_all;
use serde_json::json;
use testkit::http::Answer;

/// The parts of an answer that a stranger sees, without those that differ between any two answers.
fn seen(answer: &Answer) -> (u16, String, Vec<(String, String)>) {
    let differs = ["x-request-id", "date"];
    let headers = answer.headers.iter().filter(|(name, _)| !differs.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (answer.status.as_u16(), answer.text.clone(), headers)
}

/// [I-23]
#[tokio::test]
async fn a_taken_address_is_answered_like_a_free_one_and_changes_nothing() {
    let app = App::start().await;
    let first = app.sign_up("ada@example.com").await.expect(201);
    let again =
        app.public.post("/v1/accounts", &json!({"email": "Ada@Example.com", "password": "another long password", "name": "Eve"})).await;
    assert_eq!(seen(&first), seen(&again));
    assert_eq!(app.count("select count(*) from users").await, 1);
    assert_eq!(app.count("select count(*) from _outbox where kind = 'organization.created'").await, 1);
    app.log_in("ada@example.com", PASSWORD).await.expect(201);
    app.log_in("ada@example.com", "another long password").await.expect(401);
}

#[tokio::test]
async fn an_account_its_organization_and_its_event_come_together() {
    let app = App::start().await;
    app.sign_up("ada@example.com").await.expect(201);
    let joined = "select count(*) from users u join memberships m on m.user_id = u.id join organizations o on o.id = m.organization_id
                  join _outbox b on b.organization_id = o.id and b.payload->>'billing_email' = u.email";
    assert_eq!(app.count(joined).await, 1);
    let published = testkit::eventually("the event on the stream", || async {
        let length: i64 = redis::cmd("XLEN").arg("trivet:events:auth").query_async(&mut app.redis.redis.connection()).await.ok()?;
        (length == 1).then_some(length)
    });
    assert_eq!(published.await, 1);
}

#[tokio::test]
async fn bad_input_is_refused_with_the_field_and_the_rule() {
    let app = App::start().await;
    let cases = [
        (json!({"email": "ada", "password": PASSWORD, "name": "Ada"}), "email"),
        (json!({"email": "ada@example.com", "password": "short", "name": "Ada"}), "password"),
        (json!({"email": "ada@example.com", "password": PASSWORD, "name": ""}), "name"),
        (json!({"email": ["ada@example.com", "eve@example.com"], "password": PASSWORD, "name": "Ada"}), "email"),
    ];
    for (body, field) in cases {
        let answer = app.public.post("/v1/accounts", &body).await.expect(422);
        assert_eq!(answer.json["errors"][0]["field"], field, "{}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(!answer.text.contains(PASSWORD), "the password is in the answer");
    }
    let unknown = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada", "role": "admin"});
    app.public.post("/v1/accounts", &unknown).await.expect(422);
    assert_eq!(app.count("select count(*) from users").await, 0);
}

/// [B-51]
#[tokio::test]
async fn the_same_idempotency_key_has_one_effect_and_another_body_is_refused() {
    let app = App::start().await;
    let client = app.public.header("idempotency-key", "k1");
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada"});
    let first = client.post("/v1/accounts", &body).await.expect(201);
    let again = client.post("/v1/accounts", &body).await.expect(201);
    assert_eq!((first.text, again.header("idempotency-replayed")), (again.text.clone(), "true"));
    let other = json!({"email": "eve@example.com", "password": PASSWORD, "name": "Ada"});
    assert_eq!(client.post("/v1/accounts", &other).await.expect(422).json["code"], "idempotency_key_reused");
    assert_eq!(app.count("select count(*) from users").await, 1);
}

/// [I-21]
#[tokio::test]
async fn every_failed_login_has_the_same_status_body_and_headers() {
    let app = App::start().await;
    app.sign_up("ada@example.com").await.expect(201);
    app.sign_up("bob@example.com").await.expect(201);
    sqlx::query("update users set disabled_at = now() where email = 'bob@example.com'").execute(&app.database.owner).await.unwrap();
    let wrong = app.log_in("ada@example.com", "the wrong password").await.expect(401);
    for (email, password) in [("nobody@example.com", PASSWORD), ("bob@example.com", PASSWORD), ("not an address", PASSWORD), ("", PASSWORD)]
    {
        assert_eq!(seen(&wrong), seen(&app.log_in(email, password).await), "{email}");
    }
}

/// [I-51] [I-52]
#[tokio::test]
async fn of_a_hundred_parallel_refreshes_one_rotates_and_all_get_the_same_successor() {
    let app = App::start().await;
    let (_, refresh) = app.session("ada@example.com").await;
    let answers = join_all((0..100).map(|_| app.refresh(&refresh))).await;
    let successors: std::collections::BTreeSet<String> =
        answers.into_iter().map(|answer| answer.expect(200).string("refresh_token")).collect();
    assert_eq!(successors.len(), 1);
    assert_eq!(app.count("select count(*) from refresh_tokens").await, 2, "more than one successor was stored");
}

/// [I-52]
#[tokio::test]
async fn a_lost_answer_is_given_again_for_ten_seconds() {
    let app = App::start().await;
    let (_, refresh) = app.session("ada@example.com").await;
    let first = app.refresh(&refresh).await.expect(200).string("refresh_token");
    app.turn.advance(Duration::from_secs(10));
    assert_eq!(app.refresh(&refresh).await.expect(200).string("refresh_token"), first);
    app.refresh(&first).await.expect(200);
}

/// [I-51]
#[tokio::test]
async fn a_second_use_after_the_grace_ends_the_session() {
    let app = App::start().await;
    let (_, refresh) = app.session("ada@example.com").await;
    let successor = app.refresh(&refresh).await.expect(200).string("refresh_token");
    app.turn.advance(Duration::from_millis(10_001));
    app.refresh(&refresh).await.expect(401);
    app.refresh(&successor).await.expect(401);
    assert_eq!(app.count("select count(*) from sessions where revoked_reason = 'reuse'").await, 1);
}

/// [I-52]
#[tokio::test]
async fn a_second_use_after_the_successor_was_used_ends_the_session() {
    let app = App::start().await;
    let (_, refresh) = app.session("ada@example.com").await;
    let successor = app.refresh(&refresh).await.expect(200).string("refresh_token");
    let third = app.refresh(&successor).await.expect(200).string("refresh_token");
    app.refresh(&refresh).await.expect(401);
    app.refresh(&third).await.expect(401);
}

/// [I-53]
#[tokio::test]
async fn refresh_tokens_end_when_idle_and_sessions_end_whatever_happens() {
    let app = App::start().await;
    let day = Duration::from_hours(24);
    let (_, idle) = app.session("ada@example.com").await;
    app.turn.advance(day * 7);
    app.refresh(&idle).await.expect(401);
    let mut token = app.log_in("ada@example.com", PASSWORD).await.expect(201).string("refresh_token");
    for _ in 0..5 {
        app.turn.advance(day * 5);
        token = app.refresh(&token).await.expect(200).string("refresh_token");
    }
    app.turn.advance(day * 5);
    app.refresh(&token).await.expect(401);
}

/// [I-53]
#[tokio::test]
async fn a_session_keeps_its_client_its_scopes_and_its_audience() {
    let app = App::start().await;
    let (_, refresh) = app.session("ada@example.com").await;
    let whole: (String, String, Option<String>) =
        sqlx::query_as("select client_id, scope, audience from sessions").fetch_one(&app.database.owner).await.unwrap();
    assert_eq!((whole.0.as_str(), whole.1, whole.2.as_deref()), ("trivet", identity::Scopes::all().to_string(), Some("trivet")));
    sqlx::query("update sessions set client_id = 'reader', scope = 'api_keys:read'").execute(&app.database.owner).await.unwrap();
    let mut token = refresh;
    for _ in 0..3 {
        let answer = app.refresh(&token).await.expect(200);
        let access = answer.string("access_token");
        let claims = part(&access, 1);
        assert_eq!((&claims["client_id"], &claims["scope"], &claims["aud"]), (&json!("reader"), &json!("api_keys:read"), &json!("trivet")));
        let client = app.public.bearer(&access);
        client.get("/v1/api-keys").await.expect(200);
        client.get("/v1/me").await.expect(403);
        client.post("/v1/api-keys", &json!({"name": "wider"})).await.expect(403);
        token = answer.string("refresh_token");
    }
    sqlx::query("update sessions set audience = 'somebody else'").execute(&app.database.owner).await.unwrap();
    let access = app.refresh(&token).await.expect(200).string("access_token");
    assert_eq!(part(&access, 1)["aud"], "somebody else");
    app.public.bearer(&access).get("/v1/api-keys").await.expect(401);
}

/// [I-53]
#[tokio::test]
async fn a_session_of_the_version_before_goes_on_as_it_began() {
    let app = App::start().await;
    let (_, refresh) = app.session("ada@example.com").await;
    let as_before = "update sessions set client_id = default, scope = default, audience = default";
    sqlx::query(as_before).execute(&app.database.owner).await.unwrap();
    let claims = part(&app.refresh(&refresh).await.expect(200).string("access_token"), 1);
    // All scopes that there were then; one that is newer comes with the next login.
    let scopes = "chat:write models:read billing:read api_keys:read api_keys:write profile:read";
    let scopes: std::collections::BTreeSet<&str> = scopes.split(' ').collect();
    let kept: std::collections::BTreeSet<&str> = claims["scope"].as_str().unwrap().split(' ').collect();
    assert_eq!((&claims["client_id"], &claims["aud"], kept), (&json!("trivet"), &json!("trivet"), scopes));
}

/// [I-41] Nothing need be heard for it: the first request after the end is refused.
#[tokio::test]
async fn logging_out_ends_refresh_and_access_at_once_also_without_redis() {
    let app = App::start().await;
    let (client, refresh) = app.session("ada@example.com").await;
    client.get("/v1/me").await.expect(200);
    app.redis.pause();
    client.get("/v1/me").await.expect(200);
    client.delete("/v1/sessions/current").await.expect(204);
    client.get("/v1/me").await.expect(401);
    client.get("/v1/api-keys").await.expect(401);
    app.refresh(&refresh).await.expect(401);
}

/// [I-41]
#[tokio::test]
async fn who_is_disabled_or_out_of_time_is_refused_at_once() {
    let app = App::start().await;
    let (client, refresh) = app.session("ada@example.com").await;
    client.get("/v1/api-keys").await.expect(200);
    for (statement, undo) in [
        ("update users set disabled_at = now()", "update users set disabled_at = null"),
        ("update sessions set expires_at = '2029-12-31'", "update sessions set expires_at = '2031-01-01'"),
    ] {
        sqlx::query(statement).execute(&app.database.owner).await.unwrap();
        client.get("/v1/api-keys").await.expect(401);
        app.refresh(&refresh).await.expect(401);
        sqlx::query(undo).execute(&app.database.owner).await.unwrap();
        client.get("/v1/api-keys").await.expect(200);
    }
}

/// [I-22] Counted where the work is done, not timed: a hash is what a login costs.
#[tokio::test]
async fn a_login_costs_one_hash_whoever_tries_and_however_it_ends() {
    let app = App::start().await;
    app.sign_up("ada@example.com").await.expect(201);
    app.sign_up("bob@example.com").await.expect(201);
    sqlx::query("update users set disabled_at = now() where email = 'bob@example.com'").execute(&app.database.owner).await.unwrap();
    for (email, password, status) in [
        ("ada@example.com", PASSWORD, 201),
        ("ada@example.com", "the wrong password", 401),
        ("bob@example.com", PASSWORD, 401),
        ("bob@example.com", "the wrong password", 401),
        ("nobody@example.com", PASSWORD, 401),
        ("not an address", PASSWORD, 401),
        ("", "", 401),
    ] {
        let before = app.hasher.runs();
        app.log_in(email, password).await.expect(status);
        assert_eq!(app.hasher.runs() - before, 1, "{email} with {password}");
    }
    for email in ["ada@example.com", "eve@example.com"] {
        let before = app.hasher.runs();
        app.sign_up(email).await.expect(201);
        assert_eq!(app.hasher.runs() - before, 1, "signing up as {email}");
    }
}

/// [I-11]
#[tokio::test]
async fn a_weaker_stored_hash_is_upgraded_at_the_next_login() {
    let app = App::start().await;
    app.sign_up("ada@example.com").await.expect(201);
    let pepper = app.config.secret.pepper();
    let params = argon2::Params::new(8192, 1, 1, None).unwrap();
    let weak = argon2::Argon2::new_with_secret(&pepper, argon2::Algorithm::Argon2id, argon2::Version::V0x13, params).unwrap();
    let weak = argon2::PasswordHasher::hash_password_with_salt(&weak, PASSWORD.as_bytes(), b"sixteen byte salt").unwrap().to_string();
    sqlx::query("update users set password_hash = $1").bind(weak).execute(&app.database.owner).await.unwrap();
    app.log_in("ada@example.com", PASSWORD).await.expect(201);
    assert_eq!(app.count("select count(*) from users where password_hash like '$argon2id$v=19$m=19456,t=2,p=1$%'").await, 1);
}
