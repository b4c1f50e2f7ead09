//! How many keys may live at once: of an organization, and made with one key.

use super::app::App;
use futures::future::join_all;
use serde_json::json;
use testkit::http::Answer;

/// More keys like those of this name.
async fn more_like(app: &App, name: &'static str, keys: i32) {
    sqlx::query(
        "insert into api_keys (id, organization_id, created_by, created_by_key, name, key_sha256, prefix, last_four, scopes, created_at)
         select gen_random_uuid(), organization_id, created_by, created_by_key, 'more', gen_random_uuid()::text, prefix, last_four, scopes, created_at
         from api_keys, generate_series(1, $2) where name = $1",
    )
    .bind(name)
    .bind(keys)
    .execute(&app.database.owner)
    .await
    .unwrap();
}

/// How many were made, and how many were refused because there are too many; nothing else happened.
fn made_and_refused(answers: Vec<Answer>) -> (usize, usize) {
    let (made, refused): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status.as_u16() == 201);
    for answer in &refused {
        assert_eq!((answer.status.as_u16(), &answer.json["code"]), (409, &json!("too_many_api_keys")), "{}", answer.text);
    }
    (made.len(), refused.len())
}

/// [I-71]
#[tokio::test]
async fn of_many_keys_made_at_once_no_more_live_than_an_organization_may_have() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let first = client.post("/v1/api-keys", &json!({"name": "first"})).await.expect(201);
    more_like(&app, "first", 994).await;
    let body = json!({"name": "late"});
    let answers = join_all((0..20).map(|_| client.post("/v1/api-keys", &body))).await;
    assert_eq!(made_and_refused(answers), (5, 15));
    assert_eq!(app.count("select count(*) from api_keys where revoked_at is null").await, 1_000);
    assert_eq!(app.count("select count(*) from audit_events where outcome = 'too_many_api_keys'").await, 15);
    // The limit is each organization's own, a refusal does not use up an Idempotency-Key, and a key that is revoked makes room.
    let (eve, _) = app.session("eve@example.com").await;
    eve.post("/v1/api-keys", &body).await.expect(201);
    let repeated = client.header("idempotency-key", "k1");
    repeated.post("/v1/api-keys", &body).await.expect(409);
    client.delete(&format!("/v1/api-keys/{}", first.string("id"))).await.expect(204);
    repeated.post("/v1/api-keys", &body).await.expect(201);
    client.post("/v1/api-keys", &body).await.expect(409);
}

/// [I-71]
#[tokio::test]
async fn a_key_that_has_ended_makes_room_at_the_instant_of_its_end() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    client.post("/v1/api-keys", &json!({"name": "first"})).await.expect(201);
    more_like(&app, "first", 999).await;
    sqlx::query("update api_keys set expires_at = '2030-01-01T00:00:01Z' where name = 'first'").execute(&app.database.owner).await.unwrap();
    let body = json!({"name": "late"});
    client.post("/v1/api-keys", &body).await.expect(409);
    app.turn.advance(std::time::Duration::from_secs(1));
    client.post("/v1/api-keys", &body).await.expect(201);
    client.post("/v1/api-keys", &body).await.expect(409);
}

/// [I-71]
#[tokio::test]
async fn of_many_keys_made_at_once_with_a_key_no_more_live_than_it_may_have_made() {
    let app = App::start().await;
    let (client, _) = app.session("ada@example.com").await;
    let scopes = json!(["api_keys:write"]);
    let body = |name: &str| json!({"name": name, "scopes": scopes});
    let maker = client.post("/v1/api-keys", &body("maker")).await.expect(201);
    let maker = app.public.bearer(&maker.string("key"));
    let child = maker.post("/v1/api-keys", &body("child")).await.expect(201);
    more_like(&app, "child", 46).await;
    let late = body("late");
    let answers = join_all((0..12).map(|_| maker.post("/v1/api-keys", &late))).await;
    assert_eq!(made_and_refused(answers), (3, 9));
    assert_eq!(app.count("select count(*) from api_keys where revoked_at is null and created_by_key is not null").await, 50);
    // A person, and each key that was made, have room of their own; a key that is revoked makes room.
    client.post("/v1/api-keys", &late).await.expect(201);
    app.public.bearer(&child.string("key")).post("/v1/api-keys", &late).await.expect(201);
    client.delete(&format!("/v1/api-keys/{}", child.string("id"))).await.expect(204);
    maker.post("/v1/api-keys", &late).await.expect(201);
    maker.post("/v1/api-keys", &late).await.expect(409);
}
