//! API keys: made, shown once, bound to who made them, revoked.

use std::time::Duration;

use super::app::App;
use chrono::TimeDelta;
use futures::future::join_all;
use identity::{Scope, Scopes};
use serde_json::{Value, json};
use testkit::http::TestClient;

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
    let end = in_an_hour(&app, 0);
    let short = client.post("/v1/api-keys", &json!({"name": "short", "expires_at": end})).await.expect(201).string("key");
    app.turn.advance(Duration::from_secs(3599));
    assert!(app.verify(&short).await.json["api_key"].is_object());
    app.turn.advance(Duration::from_secs(1));
    assert_eq!(app.verify(&short).await.json["api_key"], Value::Null, "usable at the instant of its end");
}

fn in_an_hour(app: &App, and_seconds: i64) -> String {
    (app.clock.now() + TimeDelta::seconds(3600 + and_seconds)).to_rfc3339()
}

/// [I-71]
#[tokio::test]
async fn a_key_that_a_key_makes_ends_no_later_and_is_limited_no_less() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let scopes = json!(["api_keys:write", "chat:write"]);
    let body = json!({"name": "maker", "scopes": scopes, "expires_at": in_an_hour(&app, 0), "requests_per_minute": 10});
    let made = client.post("/v1/api-keys", &body).await.expect(201);
    let maker = app.public.bearer(&made.string("key"));
    for (field, value) in [("expires_at", json!(in_an_hour(&app, 1))), ("requests_per_minute", json!(11))] {
        let mut body = json!({"name": "more", "scopes": scopes});
        body[field] = value;
        let refused = maker.post("/v1/api-keys", &body).await.expect(403);
        assert_eq!((&refused.json["code"], &refused.json["errors"][0]["field"]), (&json!("forbidden"), &json!(field)));
    }
    let inherited = maker.post("/v1/api-keys", &json!({"name": "as the maker", "scopes": scopes})).await.expect(201);
    for field in ["expires_at", "requests_per_minute"] {
        assert_eq!(inherited.json[field], made.json[field], "{field} was not inherited");
    }
    let body = json!({"name": "less", "scopes": scopes, "expires_at": in_an_hour(&app, -1), "requests_per_minute": 9});
    assert_eq!(maker.post("/v1/api-keys", &body).await.expect(201).json["requests_per_minute"], 9);
    // What was made is bound in turn, and a person is not.
    let body = json!({"name": "grandchild", "scopes": scopes, "requests_per_minute": 11});
    app.public.bearer(&inherited.string("key")).post("/v1/api-keys", &body).await.expect(403);
    client.post("/v1/api-keys", &json!({"name": "a person's", "requests_per_minute": 1000})).await.expect(201);
}

/// [I-71]
#[tokio::test]
async fn with_a_key_everything_that_was_made_with_it_is_revoked_and_nothing_else() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let make = async |client: &TestClient, name: &str| {
        let answer = client.post("/v1/api-keys", &json!({"name": name, "scopes": ["api_keys:write"]})).await.expect(201);
        (answer.string("id"), answer.string("key"))
    };
    let (root, root_key) = make(&client, "root").await;
    let (_, child_key) = make(&app.public.bearer(&root_key), "child").await;
    let (_, grandchild_key) = make(&app.public.bearer(&child_key), "grandchild").await;
    let (_, other_key) = make(&client, "other").await;
    client.delete(&format!("/v1/api-keys/{root}")).await.expect(204);
    for key in [&root_key, &child_key, &grandchild_key] {
        assert_eq!(app.verify(key).await.json["api_key"], Value::Null);
        app.public.bearer(key).post("/v1/api-keys", &json!({"name": "late", "scopes": ["api_keys:write"]})).await.expect(401);
    }
    assert!(app.verify(&other_key).await.json["api_key"].is_object());
    assert_eq!(app.count("select count(distinct payload->>'api_key_id') from _outbox where kind = 'api_key.revoked'").await, 3);
}

/// [I-71]
#[tokio::test]
async fn no_key_that_is_being_made_escapes_the_revocation_of_its_maker() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let body = json!({"name": "x", "scopes": ["api_keys:write"]});
    for _ in 0..10 {
        let root = client.post("/v1/api-keys", &body).await.expect(201);
        let child = app.public.bearer(&root.string("key")).post("/v1/api-keys", &body).await.expect(201);
        let (root_path, makers) =
            (format!("/v1/api-keys/{}", root.string("id")), [root.string("key"), child.string("key")].map(|key| app.public.bearer(&key)));
        let making = join_all((0..8).map(|n| makers[n % 2].post("/v1/api-keys", &body)));
        let (_, revoked) = tokio::join!(making, client.delete(&root_path));
        revoked.expect(204);
        assert_eq!(app.count("select count(*) from api_keys where revoked_at is null").await, 0);
    }
}

/// [B-51] [I-70]
#[tokio::test]
async fn a_call_that_is_repeated_when_its_answer_is_forgotten_is_refused_and_makes_nothing() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let repeated = client.header("idempotency-key", "k1");
    let first = repeated.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201);
    chassis::idempotency::prune(&app.database.owner, app.clock.now() + TimeDelta::days(3)).await.unwrap();
    for _ in 0..2 {
        let refused = repeated.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(422);
        assert_eq!(refused.json["code"], "idempotency_key_reused");
        assert_eq!(refused.json["errors"][0]["field"], "Idempotency-Key");
    }
    assert_eq!(app.count("select count(*) from api_keys").await, 1);
    assert!(app.verify(&first.string("key")).await.json["api_key"].is_object());
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

/// [I-71]
#[tokio::test]
async fn a_key_lists_the_others_with_the_scope_for_it_and_with_no_other() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let others: Scopes = Scope::ALL.into_iter().filter(|scope| *scope != Scope::ApiKeysRead).collect();
    for (scopes, status) in [(others, 403), (Scopes::known(["api_keys:read"]), 200)] {
        let key = client.post("/v1/api-keys", &json!({"name": "ci", "scopes": scopes})).await.expect(201).string("key");
        app.public.bearer(&key).get("/v1/api-keys").await.expect(status);
    }
    app.public.get("/v1/api-keys").await.expect(401);
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

/// Nothing is remembered here and nothing need be heard: the first request after the revocation is refused.
#[tokio::test]
async fn a_revoked_key_is_gone_at_once_also_without_redis_and_its_revocation_is_published() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let made = client.post("/v1/api-keys", &json!({"name": "ci", "scopes": ["api_keys:read"]})).await.expect(201);
    let with_key = app.public.bearer(&made.string("key"));
    with_key.get("/v1/api-keys").await.expect(200);
    app.redis.pause();
    client.delete(&format!("/v1/api-keys/{}", made.string("id"))).await.expect(204);
    with_key.get("/v1/api-keys").await.expect(401);
    assert_eq!(app.count("select count(*) from _outbox where kind = 'api_key.revoked'").await, 1);
    client.delete(&format!("/v1/api-keys/{}", made.string("id"))).await.expect(404);
    app.redis.resume();
    testkit::eventually("the event on the stream", || async {
        let entries: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg("trivet:events:auth").arg("-").arg("+").query_async(&mut app.redis.redis.connection()).await.ok()?;
        entries.ids.iter().find(|entry| entry.get::<String>("kind").as_deref() == Some("api_key.revoked")).map(drop)
    })
    .await;
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
