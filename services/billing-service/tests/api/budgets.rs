//! Budgets: what they limit, what they tell, to whom and how often.

use std::time::Duration;

use billing_service::budgets::alerts::evaluate_all;
use billing_service::budgets::evaluate::period_of;
use billing_service::budgets::spent::{Part, Spender, spent};
use billing_service::rollups;
use contracts::entitlements::LimitPeriod;
use contracts::usage::UsageEvent;
use http::Method;
use identity::{OrganizationId, Scopes};
use serde_json::{Value, json};
use testkit::http::TestClient;

use super::app::App;

/// An organization that may set budgets.
pub fn owner(app: &App) -> (OrganizationId, TestClient) {
    let (organization, _) = app.organization();
    (organization, app.key_of(organization, Scopes::all()))
}

/// A monthly budget of 3000 micro-units, but for what is said.
pub fn budget(rest: &Value) -> Value {
    let mut body = json!({"name": "all", "scope": "organization", "period": "month", "limit_micros": 3000, "currency": "USD"});
    body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    body
}

/// Uses 1500 micro-units.
pub async fn spend(app: &App, organization: OrganizationId) {
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

/// [B-78] What keeps somebody from spending is not taken away and put back without a trace.
#[tokio::test]
async fn who_makes_changes_or_ends_a_budget_is_on_record_with_what_it_was_before() {
    let app = App::start().await;
    let (_, client) = owner(&app);
    let id = client.post("/v1/budgets", &budget(&json!({"hard": true}))).await.expect(201).string("id");
    let (path, raised) = (format!("/v1/budgets/{id}"), json!({"limit_micros": 9_000_000}).to_string());
    for _ in 0..2 {
        client.send(Method::PATCH, &path, Some(raised.clone())).await.expect(200);
    }
    client.delete(&path).await.expect(204);
    let logged: Vec<(String, Value, Value, bool)> =
        sqlx::query_as("select action, coalesce(before -> 'limit_micros', 'null'), coalesce(after -> 'limit_micros', 'null'), actor <> '' from audit_log where action like 'budget.%' order by id")
            .fetch_all(&app.database.owner)
            .await
            .unwrap();
    let limit = budget(&json!({}))["limit_micros"].clone();
    let told: Vec<_> = logged.iter().map(|(action, before, after, is_named)| (action.as_str(), before, after, *is_named)).collect();
    let (none, high) = (Value::Null, json!(9_000_000));
    assert_eq!(
        told,
        [("budget.create", &none, &limit, true), ("budget.change", &limit, &high, true), ("budget.delete", &high, &none, true)]
    );
}

/// [B-78] What is on record is kept for ever.
#[tokio::test]
async fn budgets_are_changed_five_thousand_times_in_a_day_at_most() {
    let app = App::start().await;
    let ((ada, client), (_, eve)) = (owner(&app), owner(&app));
    let path = format!("/v1/budgets/{}", client.post("/v1/budgets", &budget(&json!({}))).await.expect(201).string("id"));
    let many = "insert into audit_log (at, actor, action, organization_id, reason, request, before, after, request_id, idempotency_key)
        select $2, 'somebody', 'budget.change', $1, 'PATCH', 'null', 'null', 'null', gen_random_uuid(), n::text from generate_series(1, 4999) n";
    sqlx::query(many).bind(ada.uuid()).bind(app.clock.now()).execute(&app.database.owner).await.unwrap();
    let raise = async |limit: i64| client.send(Method::PATCH, &path, Some(json!({"limit_micros": limit}).to_string())).await;
    let refused = raise(4000).await.expect(429);
    assert_eq!((refused.string("code").as_str(), refused.header("retry-after")), ("too_many_changes", "3600"));
    assert_eq!(client.get("/v1/budgets").await.expect(200).json["data"][0]["limit_micros"], 3000, "half done");
    eve.post("/v1/budgets", &budget(&json!({}))).await.expect(201);
    app.turn.advance(Duration::from_hours(24));
    raise(4000).await.expect(200);
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
        (json!({"scope": "tag"}), "scope_id"),
        (json!({"scope": "tag", "scope_id": "a,b"}), "scope_id"),
        (json!({"scope": "tag", "scope_id": " a"}), "scope_id"),
        (json!({"scope": "tag", "scope_id": "a\tb"}), "scope_id"),
        (json!({"name": ""}), "name"),
    ];
    for (wrong, field) in cases {
        let refused = client.post("/v1/budgets", &budget(&wrong)).await.expect(422);
        assert!(refused.text.contains(field), "{wrong}: {}", refused.text);
    }
    let tag = client.post("/v1/budgets", &budget(&json!({"scope": "tag", "scope_id": "x"}))).await.expect(201);
    assert_eq!(tag.json["thresholds"], json!([50, 80, 100]));
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
    let looks = futures::future::join_all((0..64).map(|_| evaluate_all(&state))).await;
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
async fn a_text_with_a_nul_is_refused_and_a_budget_in_another_currency_than_that_of_usage_too() {
    let app = App::start().await;
    let (_, client) = owner(&app);
    let refused = client.post("/v1/budgets", &budget(&json!({"name": "a\u{0}"}))).await.expect(400);
    assert_eq!(refused.string("code"), "invalid_text");
    let refused = client.post("/v1/budgets", &budget(&json!({"currency": "EUR"}))).await.expect(422);
    assert_eq!(refused.json["errors"][0]["field"], "currency");
    assert_eq!(app.count("select count(*) from budgets").await, 0);
}

#[tokio::test]
async fn an_organization_has_as_many_budgets_as_it_may_and_no_more() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    let (_, eve) = owner(&app);
    let many = format!(
        "insert into budgets (id, organization_id, name, scope, scope_id, period, limit_micros, currency, hard, thresholds, forecast, created_at, updated_at)
         select gen_random_uuid(), '{}', 'many', 'organization', '', 'month', 1, 'USD', false, '{{}}', false, now(), now() from generate_series(1, 199)",
        ada.uuid()
    );
    app.as_owner(many.leak()).await;
    let one_more = budget(&json!({}));
    let outcomes = futures::future::join_all((0..64).map(|_| client.post("/v1/budgets", &one_more))).await;
    assert_eq!(outcomes.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(outcomes.iter().all(|answer| answer.status == 201 || answer.string("code") == "too_many_budgets"));
    eve.post("/v1/budgets", &budget(&json!({}))).await.expect(201);
    // One that is gone is none of them.
    let made = outcomes.iter().find(|answer| answer.status == 201).unwrap().string("id");
    client.delete(&format!("/v1/budgets/{made}")).await.expect(204);
    client.post("/v1/budgets", &one_more).await.expect(201);
    client.post("/v1/budgets", &one_more).await.expect(409);
}

/// Whichever way it is counted: a minute by its rows, a day and a month by their sums.
#[tokio::test]
async fn a_budget_of_a_tag_tells_of_requests_with_it_alone_and_usage_says_which_those_are() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    let (eve, _) = owner(&app);
    for (tag, period) in [("night", "minute"), ("night", "day"), ("night", "month"), ("noon", "day")] {
        let told = json!({"scope": "tag", "scope_id": tag, "period": period, "limit_micros": 300, "thresholds": [100], "forecast": false});
        client.post("/v1/budgets", &budget(&told)).await.expect(201);
    }
    let spends = async |organization: OrganizationId, tags: &[&str]| {
        let tags = tags.iter().map(ToString::to_string).collect();
        let event = UsageEvent { tags, ..app.used(organization).await };
        app.gateway.post("/internal/v1/settlements", &serde_json::to_value(&event).unwrap()).await.expect(200);
        event.request_id
    };
    let first = spends(ada, &["night", "ci"]).await;
    spends(ada, &["nigh"]).await;
    spends(ada, &[]).await;
    spends(eve, &["night"]).await;
    assert_eq!(evaluate_all(&app.state()).await.unwrap(), 0, "150 of 300 were spent");
    let second = spends(ada, &["night"]).await;
    assert_eq!(evaluate_all(&app.state()).await.unwrap(), 3);
    let told =
        "select count(*) from budget_alerts a join budgets b on b.id = a.budget_id where b.scope_id = 'night' and a.spent_micros = 300";
    assert_eq!(app.count(told).await, 3);
    let rows = client.get("/v1/usage").await.expect(200).json;
    let rows: Vec<(&Value, &Value)> = rows["data"].as_array().unwrap().iter().map(|row| (&row["request_id"], &row["tags"])).collect();
    assert_eq!(rows.len(), 4);
    assert!(rows.contains(&(&json!(first), &json!(["ci", "night"]))) && rows.contains(&(&json!(second), &json!(["night"]))), "{rows:?}");
    let (from, to) = ("2020-01-01T00:00:00Z", "2040-01-01T00:00:00Z");
    let csv = client.get(&format!("/v1/usage/export?format=csv&from={from}&to={to}")).await.expect(200).text;
    assert!(csv.lines().next().unwrap().ends_with(",ended_at,tags"), "{csv}");
    assert_eq!((csv.matches(",\"ci,night\"\r\n").count(), csv.matches(",night\r\n").count()), (1, 1), "{csv}");
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

/// [B-61] The same as the rows say, whatever is in the rollups already; and for days and months without a look at any row.
#[tokio::test]
async fn what_was_spent_by_the_rollups_is_what_the_rows_say_for_organizations_people_keys_and_tags() {
    let app = App::with(|config| config.usage.roll_up = chassis::config::Millis(Duration::from_hours(1))).await;
    let pool = &app.database.pool;
    let ids: Vec<uuid::Uuid> = (0..6).map(|_| app.random.uuid_v7(&app.clock)).collect();
    let statement = r#"insert into usage_events (request_id, organization_id, user_id, api_key_id, model, provider, input_tokens, cached_input_tokens, cache_write_tokens,
           output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, currency, price_micros, cost_micros, counted_by,
           outcome, tags, started_at, ended_at, recorded_at)
         select gen_random_uuid(), $1[1 + n % 2], case when n % 3 > 0 then $1[3 + n % 2] end, case when n % 3 = 0 then $1[5 + n % 2] end, 'm', 'p', 1, 0, 0, 1, 0, 0, 0,
           (select min(id) from rate_cards), case when n % 7 = 0 then 'EUR' else 'USD' end, n * 10, 1, case when n % 5 = 0 then 'abandoned' else 'reported' end,
           'completed', case when n % 4 = 0 then '["x"]' when n % 4 = 1 then '["x", "y"]' else '[]' end::jsonb, now(), timestamptz '2030-01-01' + n * interval '97 minutes', now() from generate_series(1, 600) n"#;
    let insert = || sqlx::query(statement).bind(&ids).execute(&app.database.owner);
    let spenders: Vec<Spender> = ids[..2]
        .iter()
        .flat_map(|organization| {
            let of = |part: Part, currency: &str| Spender {
                organization: OrganizationId::from_uuid(*organization),
                part,
                currency: currency.to_owned(),
            };
            let user = Part::User(identity::UserId::from_uuid(ids[2]));
            let key = Part::Key(identity::ApiKeyId::from_uuid(ids[4]));
            let [model, x, y] = [Part::Model("m".to_owned()), Part::Tag("x".to_owned()), Part::Tag("y".to_owned())];
            let parts = [Part::Whole, user, key, model, x, y].map(|part| of(part, "USD"));
            parts.into_iter().chain([of(Part::Whole, "EUR")]).collect::<Vec<_>>()
        })
        .collect();
    let compare = async |when: &str| {
        let mut seen = 0;
        for spender in &spenders {
            for (length, instant) in [
                (LimitPeriod::Month, "2030-01-15T00:00:00Z"),
                (LimitPeriod::Month, "2030-02-01T00:00:00Z"),
                (LimitPeriod::Day, "2030-01-10T12:00:00Z"),
                (LimitPeriod::Minute, "2030-01-01T01:37:30Z"),
            ] {
                let period = period_of(length, instant.parse().unwrap());
                let raw: i64 = sqlx::query_scalar(
                    "select coalesce(sum(price_micros), 0)::bigint from usage_events where organization_id = $1 and currency = $2 and ended_at >= $3
                       and ended_at < $4 and ($5::uuid is null or user_id = $5) and ($6::uuid is null or api_key_id = $6) and ($7::text is null or model = $7)
                       and ($8::text is null or tags @> to_jsonb($8))",
                )
                .bind(spender.organization.uuid())
                .bind(&spender.currency)
                .bind(period.start)
                .bind(period.end)
                .bind(if let Part::User(user) = &spender.part { Some(user.uuid()) } else { None })
                .bind(if let Part::Key(key) = &spender.part { Some(key.uuid()) } else { None })
                .bind(if let Part::Model(model) = &spender.part { Some(model) } else { None })
                .bind(if let Part::Tag(tag) = &spender.part { Some(tag) } else { None })
                .fetch_one(&app.database.owner)
                .await
                .unwrap();
                assert_eq!(spent(pool, spender, length, period).await.unwrap(), raw, "{when}: {spender:?} {length:?} {instant}");
                seen += usize::from(raw > 0);
            }
        }
        assert!(seen > spenders.len(), "{when}: only {seen} sums are of something");
    };
    insert().await.unwrap();
    compare("nothing is in the rollups").await;
    while rollups::usage::fold(pool).await.unwrap() {}
    while rollups::spend::fold(pool).await.unwrap() {}
    compare("all is").await;
    insert().await.unwrap();
    let replaced = "update usage_events set counted_by = 'reported', price_micros = price_micros + 3, ended_at = ended_at + interval '20 days' where counted_by = 'abandoned'";
    sqlx::query(replaced).execute(pool).await.unwrap();
    compare("some is, and rows moved to another day and month").await;
    rollups::usage::rebuild(pool).await.unwrap();
    compare("made anew").await;
    assert_eq!(rollups::differences(pool).await.unwrap(), Vec::<String>::new());
    app.as_owner("revoke select on usage_events from billing_app").await;
    for spender in &spenders {
        for length in [LimitPeriod::Day, LimitPeriod::Month] {
            spent(pool, spender, length, period_of(length, app.clock.now())).await.expect("no row is looked at");
        }
    }
    app.as_owner("grant select on usage_events to billing_app; update tag_spend_deltas set price_micros = 1 where tag = 'y'").await;
    let told = rollups::differences(pool).await.unwrap();
    assert!(!told.is_empty() && told.iter().all(|line| line.contains("of tag y: the rollups say price_micros ")), "{told:?}");
    app.as_owner("update spend_rollups set price_micros = 1; update spend_deltas set price_micros = 1").await;
    let told = rollups::differences(pool).await.unwrap();
    assert!(told.iter().any(|line| line.contains("of user")), "a difference of a person is not told: {told:?}");
}
