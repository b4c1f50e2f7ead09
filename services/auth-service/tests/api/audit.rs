//! The audit [I-79]: every event of authentication has its row, and the row and the effect come together or not at all.

use super::app::{App, ISSUER, PASSWORD};
use auth_service::administrators::bootstrap;
use auth_service::tokens::rotate;
use serde_json::{Value, json};
use testkit::http::{Answer, TestClient};

/// What one request left in the audit: action, outcome, actor, and whether it says where.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
struct Row {
    action: String,
    outcome: String,
    actor: String,
    within: bool,
    client_address: Option<String>,
}

/// Requests that are told apart by their ids, and what each must leave.
struct Trail {
    app: App,
    requests: usize,
}

impl Trail {
    async fn start() -> Self {
        Self { app: App::start().await, requests: 0 }
    }

    /// The client, with the id of the next request.
    fn next(&mut self, client: &TestClient) -> TestClient {
        self.requests += 1;
        client.header("x-request-id", format!("r{}", self.requests))
    }

    /// The last request had this status and left this one row.
    async fn left(&self, answer: Answer, status: u16, (action, outcome, actor): (&str, &str, &str), within: bool) -> Answer {
        let answer = answer.expect(status);
        let rows: Vec<Row> = sqlx::query_as(
            "select action, outcome, actor, organization_id is not null as within, client_address from audit_events where request_id = $1",
        )
        .bind(format!("r{}", self.requests))
        .fetch_all(&self.app.database.owner)
        .await
        .unwrap();
        let text = |text: &str| text.to_owned();
        let (action, outcome, actor, client_address) = (text(action), text(outcome), text(actor), Some(text("127.0.0.1")));
        assert_eq!(rows, [Row { action, outcome, actor, within, client_address }]);
        answer
    }

    async fn post(&mut self, client: &TestClient, path: &str, body: &Value) -> Answer {
        self.next(client).post(path, body).await
    }
}

#[tokio::test]
async fn accounts_sessions_and_their_refusals_are_recorded() {
    let mut trail = Trail::start().await;
    let public = trail.app.public.clone();
    let account = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada"});
    let answer = trail.post(&public, "/v1/accounts", &account).await;
    trail.left(answer, 201, ("account.create", "accepted", "anonymous"), false).await;
    let user: uuid::Uuid = sqlx::query_scalar("select id from users").fetch_one(&trail.app.database.owner).await.unwrap();
    let user = identity::UserId::from_uuid(user).to_string();

    let answer = trail.post(&public, "/v1/sessions", &json!({"email": "ada@example.com", "password": PASSWORD})).await;
    let first = trail.left(answer, 201, ("session.create", "success", &user), true).await.string("refresh_token");
    for email in ["ada@example.com", "nobody@example.com", "nonsense"] {
        let answer = trail.post(&public, "/v1/sessions", &json!({"email": email, "password": "wrong"})).await;
        trail.left(answer, 401, ("session.create", "invalid_credentials", "anonymous"), false).await;
    }

    let mut second = String::new();
    for (token, status, outcome, actor) in [
        (first.clone(), 200, "success", user.as_str()),
        (first.clone(), 200, "repeated", &user),
        ("tvr_unknown".to_owned(), 401, "invalid_refresh_token", "anonymous"),
        (format!("tvr_{}", "A".repeat(43)), 401, "invalid_refresh_token", "anonymous"),
    ] {
        let answer = trail.post(&public, "/v1/tokens/refresh", &json!({"refresh_token": token})).await;
        let answer = trail.left(answer, status, ("session.refresh", outcome, actor), status == 200).await;
        second = if status == 200 { answer.string("refresh_token") } else { second };
    }
    let answer = trail.post(&public, "/v1/tokens/refresh", &json!({"refresh_token": second})).await;
    let access = trail.left(answer, 200, ("session.refresh", "success", &user), true).await.string("access_token");
    let answer = trail.post(&public, "/v1/tokens/refresh", &json!({"refresh_token": first})).await;
    trail.left(answer, 401, ("session.refresh", "reuse", &user), true).await;
    let answer = trail.post(&public, "/v1/tokens/refresh", &json!({"refresh_token": second})).await;
    trail.left(answer, 401, ("session.refresh", "invalid_refresh_token", "anonymous"), false).await;
    public.bearer(&access).get("/v1/me").await.expect(401);

    let access = trail.app.log_in("ada@example.com", PASSWORD).await.expect(201).string("access_token");
    let client = public.bearer(&access);
    let made = client.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201);
    let answer = trail.next(&public.bearer(&made.string("key"))).delete("/v1/sessions/current").await;
    trail.left(answer, 422, ("session.delete", "refused", &made.string("id")), true).await;
    let answer = trail.next(&client).delete("/v1/sessions/current").await;
    trail.left(answer, 204, ("session.delete", "success", &user), true).await;
}

#[tokio::test]
async fn keys_and_their_refusals_are_recorded() {
    let mut trail = Trail::start().await;
    let (client, _) = trail.app.session("ada@example.com").await;
    let user = client.get("/v1/me").await.expect(200).json["user"]["id"].as_str().unwrap().to_owned();
    let made = json!({"name": "maker", "scopes": ["api_keys:write"], "requests_per_minute": 10});
    let repeated = client.header("idempotency-key", "k1");
    let answer = trail.post(&repeated, "/v1/api-keys", &made).await;
    let maker = trail.left(answer, 201, ("api_key.create", "success", &user), true).await;
    let (maker_id, maker) = (maker.string("id"), trail.app.public.bearer(&maker.string("key")));
    let answer = trail.post(&maker, "/v1/api-keys", &made).await;
    let child = trail.left(answer, 201, ("api_key.create", "success", &maker_id), true).await.string("id");
    for (client, body, status, outcome, actor) in [
        (&maker, json!({"name": "x", "scopes": ["chat:write"]}), 403, "exceeds_caller", &maker_id),
        (&maker, json!({"name": "x", "scopes": ["api_keys:write"], "requests_per_minute": 11}), 403, "exceeds_caller", &maker_id),
        (&client, json!({"name": ""}), 422, "refused", &user),
        (&client, json!({"name": "x", "scopes": []}), 422, "refused", &user),
        (&repeated, json!({"name": "another"}), 422, "refused", &user),
    ] {
        let answer = trail.post(client, "/v1/api-keys", &body).await;
        trail.left(answer, status, ("api_key.create", outcome, actor), true).await;
    }
    chassis::idempotency::prune(&trail.app.database.owner, trail.app.clock.now() + chrono::TimeDelta::days(1)).await.unwrap();
    let answer = trail.post(&repeated, "/v1/api-keys", &made).await;
    trail.left(answer, 422, ("api_key.create", "idempotency_key_reused", &user), true).await;

    let weak = client.post("/v1/api-keys", &json!({"name": "weak", "scopes": ["chat:write"]})).await.expect(201);
    let (weak_id, weak) = (weak.string("id"), trail.app.public.bearer(&weak.string("key")));
    let answer = trail.post(&weak, "/v1/api-keys", &json!({"name": "x"})).await;
    trail.left(answer, 403, ("api_key.create", "refused", &weak_id), true).await;
    for (client, status, outcome, actor) in
        [(&weak, 403, "refused", &weak_id), (&client, 204, "success", &user), (&client, 404, "not_found", &user)]
    {
        let answer = trail.next(client).delete(&format!("/v1/api-keys/{child}")).await;
        trail.left(answer, status, ("api_key.delete", outcome, actor), true).await;
    }
}

#[tokio::test]
async fn services_and_their_refusals_are_recorded() {
    let mut trail = Trail::start().await;
    let private = trail.app.private.clone();
    let body = |assertion: &str, scope: &str| json!({"client_assertion": assertion, "audience": "auth-service", "scope": scope});
    let [first, second] = [(); 2].map(|()| trail.app.assertion("chat-service", ISSUER));
    for (assertion, scope, status, outcome, actor) in [
        (first.clone(), "api_keys:verify", 200, "success", "chat-service"),
        (first, "api_keys:verify", 401, "replayed_assertion", "chat-service"),
        (second, "anything", 403, "not_granted", "chat-service"),
        (trail.app.assertion("billing-service", ISSUER), "api_keys:verify", 401, "invalid_assertion", "anonymous"),
        (trail.app.assertion("chat-service", "https://other.example.com"), "api_keys:verify", 401, "invalid_assertion", "anonymous"),
        ("nonsense".to_owned(), "api_keys:verify", 401, "invalid_assertion", "anonymous"),
    ] {
        let answer = trail.post(&private, "/internal/v1/service-tokens", &body(&assertion, scope)).await;
        trail.left(answer, status, ("service_token.create", outcome, actor), false).await;
    }
}

#[tokio::test]
async fn what_operators_and_the_first_administrator_do_is_recorded() {
    let mut trail = Trail::start().await;
    let public = trail.app.public.clone();
    let (pool, clock, random) = (trail.app.database.pool.clone(), trail.app.clock.clone(), trail.app.random.clone());
    let token = bootstrap(&pool, &clock, &random).await.unwrap();
    trail.app.sign_up("taken@example.com").await.expect(201);
    let body = |token: &str, email: &str| json!({"bootstrap_token": token, "email": email, "password": PASSWORD, "name": "Ada"});
    for (token, email, status, outcome) in
        [("tvb_nonsense", "ada@example.com", 401, "invalid_bootstrap_token"), (&token, "taken@example.com", 409, "email_taken")]
    {
        let answer = trail.post(&public, "/v1/administrators", &body(token, email)).await;
        trail.left(answer, status, ("administrator.create", outcome, "anonymous"), false).await;
    }
    let answer = trail.post(&public, "/v1/administrators", &body(&token, "ada@example.com")).await;
    let administrator = "select id from users where administrator";
    let administrator: uuid::Uuid = sqlx::query_scalar(administrator).fetch_one(&trail.app.database.owner).await.unwrap();
    let administrator = identity::UserId::from_uuid(administrator).to_string();
    trail.left(answer, 201, ("administrator.create", "success", &administrator), false).await;

    bootstrap(&pool, &clock, &random).await.unwrap_err();
    rotate(&pool, &trail.app.config.secret, &clock, &random, false).await.unwrap();
    trail.app.turn.advance(std::time::Duration::from_secs(310));
    rotate(&pool, &trail.app.config.secret, &clock, &random, false).await.unwrap();
    rotate(&pool, &trail.app.config.secret, &clock, &random, true).await.unwrap();
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select action, outcome from audit_events where actor = 'operator' and client_address is null and request_id is null
         order by action, outcome",
    )
    .fetch_all(&trail.app.database.owner)
    .await
    .unwrap();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(action, outcome)| (action.as_str(), outcome.as_str())).collect();
    let (bootstrap, rotate) = ("administrator.bootstrap", "signing_key.rotate");
    assert_eq!(rows, [(bootstrap, "refused"), (bootstrap, "success"), (rotate, "forced"), (rotate, "success"), (rotate, "too_early")]);
}

async fn audit_works(app: &App, works: bool) {
    let statement = if works { "grant insert on audit_events to auth_app" } else { "revoke insert on audit_events from auth_app" };
    sqlx::query(statement).execute(&app.database.owner).await.unwrap();
}

#[tokio::test]
async fn nothing_happens_that_cannot_be_recorded() {
    let app = App::start().await;
    let (client, refresh) = app.session("ada@example.com").await;
    let key = client.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201);
    let one = format!("/v1/api-keys/{}", key.string("id"));
    app.turn.advance(std::time::Duration::from_secs(310));
    let assertion = app.assertion("chat-service", ISSUER);
    let token = bootstrap(&app.database.pool, &app.clock, &app.random).await.unwrap();
    let grant = json!({"client_assertion": assertion, "audience": "auth-service", "scope": "api_keys:verify"});
    let administrator = json!({"bootstrap_token": token, "email": "eve@example.com", "password": PASSWORD, "name": "Eve"});
    let effects = "select (select count(*) from users) * 1000000 + (select count(*) from sessions where revoked_at is null) * 10000
                   + (select count(*) from api_keys where revoked_at is null) * 100 + (select count(*) from _outbox)";
    let before = app.count(effects).await;
    audit_works(&app, false).await;
    app.sign_up("bob@example.com").await.expect(500);
    app.log_in("ada@example.com", PASSWORD).await.expect(500);
    app.refresh(&refresh).await.expect(500);
    client.header("idempotency-key", "k1").post("/v1/api-keys", &json!({"name": "more"})).await.expect(500);
    client.delete(&one).await.expect(500);
    client.delete("/v1/sessions/current").await.expect(500);
    app.private.post("/internal/v1/service-tokens", &grant).await.expect(500);
    app.public.post("/v1/administrators", &administrator).await.expect(500);
    bootstrap(&app.database.pool, &app.clock, &app.random).await.unwrap_err();
    rotate(&app.database.pool, &app.config.secret, &app.clock, &app.random, false).await.unwrap_err();
    audit_works(&app, true).await;
    assert_eq!(app.count(effects).await, before);
    // Each of them still works, as if it had never been tried.
    app.refresh(&refresh).await.expect(200);
    client.header("idempotency-key", "k1").post("/v1/api-keys", &json!({"name": "more"})).await.expect(201);
    app.private.post("/internal/v1/service-tokens", &grant).await.expect(200);
    app.public.post("/v1/administrators", &administrator).await.expect(201);
    client.delete(&one).await.expect(204);
    client.delete("/v1/sessions/current").await.expect(204);
}

#[tokio::test]
async fn a_refusal_is_given_also_when_it_cannot_be_recorded() {
    let app = App::start().await;
    let (client, refresh) = app.session("ada@example.com").await;
    audit_works(&app, false).await;
    app.log_in("ada@example.com", "the wrong password").await.expect(401);
    app.refresh("tvr_unknown").await.expect(401);
    client.post("/v1/api-keys", &json!({"name": ""})).await.expect(422);
    client.delete("/v1/api-keys/key_0197f0a0000070008000000000000001").await.expect(404);
    let body = json!({"client_assertion": "nonsense", "audience": "auth-service", "scope": "api_keys:verify"});
    app.private.post("/internal/v1/service-tokens", &body).await.expect(401);
    let body = json!({"bootstrap_token": "tvb_nonsense", "email": "eve@example.com", "password": PASSWORD, "name": "Eve"});
    app.public.post("/v1/administrators", &body).await.expect(401);
    audit_works(&app, true).await;
    app.refresh(&refresh).await.expect(200);
}
