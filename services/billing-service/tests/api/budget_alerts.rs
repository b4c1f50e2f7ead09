//! What budgets tell: of which period, once, and where it is read.

use std::time::Duration;

use admission::{Limit, Meter, Window};
use billing_service::budgets::alerts::evaluate_all;
use contracts::entitlements::{LimitPeriod, LimitScope};
use http::Method;
use identity::OrganizationId;
use serde_json::{Value, json};

use super::app::App;
use super::budgets::{budget, owner, spend};

fn turn(app: &App, instant: &str) {
    app.turn.set(instant.parse().unwrap());
}

/// Uses 1500 micro-units that were used up at an instant and are told now.
async fn post_late(app: &App, organization: OrganizationId, ended_at: &str) {
    let hold = app.hold(organization, 100, 100).await;
    let mut usage = app.usage(100, 100);
    usage["ended_at"] = json!(ended_at);
    app.settle(&hold, &usage).await.expect(200);
}

/// The one who looks comes by every few seconds, and the end of a period lies between two looks; usage may be posted later still.
#[tokio::test]
async fn what_is_crossed_in_the_last_second_of_a_minute_a_day_or_a_month_is_told_after_it_once() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    for period in ["minute", "day", "month"] {
        client.post("/v1/budgets", &budget(&json!({"period": period, "thresholds": [50]}))).await.expect(201);
    }
    let state = app.state();
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts").await, 0);
    turn(&app, "2030-01-31T23:59:59Z");
    spend(&app, ada).await;
    turn(&app, "2030-02-01T00:00:01Z");
    let looks = futures::future::join_all((0..64).map(|_| evaluate_all(&state))).await;
    assert!(looks.iter().all(Result::is_ok));
    let told = "select count(*) from budget_alerts where (period_start, spent_micros) in
        (('2030-01-31T23:59:00Z', 1500), ('2030-01-31T00:00:00Z', 1500), ('2030-01-01T00:00:00Z', 1500))";
    assert_eq!((app.count(told).await, app.count("select count(*) from budget_alerts").await), (3, 3));
    // A name is no limit: what is renamed is the budget that it was.
    turn(&app, "2030-02-01T23:59:59Z");
    spend(&app, ada).await;
    turn(&app, "2030-02-02T00:00:01Z");
    for made in client.get("/v1/budgets").await.expect(200).json["data"].as_array().unwrap() {
        let path = format!("/v1/budgets/{}", made["id"].as_str().unwrap());
        client.send(Method::PATCH, &path, Some(json!({"name": "renamed", "limit_micros": 3000}).to_string())).await.expect(200);
    }
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts").await, 6);
}

/// [B-41] What is refused by its worst case is never spent: a hard budget stays below its limit, and its owner wants to know why all stands.
#[tokio::test]
async fn a_hard_budget_that_refuses_is_told_of_once_in_a_period_and_again_for_another_limit() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    let made = client
        .post("/v1/budgets", &budget(&json!({"period": "day", "thresholds": [], "hard": true, "limit_micros": 1500})))
        .await
        .expect(201);
    client.post("/v1/budgets", &budget(&json!({"period": "day", "thresholds": [100], "limit_micros": 1500}))).await.expect(201);
    let state = app.state();
    let refuse = async |most: i64| {
        let since = app.clock.now().timestamp() / 86_400 * 86_400;
        let key = Limit::spend_key(ada, LimitScope::Organization, "", LimitPeriod::Day, since);
        let limit = Limit { key, meter: Meter::Spend, most, amount: 9, window: Window::Calendar(Duration::from_hours(1)), least: 0 };
        app.admissions.note_refused(&limit).await.unwrap();
    };
    let told = async || {
        for _ in 0..2 {
            evaluate_all(&state).await.unwrap();
        }
        app.count("select count(*) from budget_alerts where threshold = 'refused' and spent_micros = 0").await
    };
    refuse(1499).await;
    assert_eq!(told().await, 0, "that was another limit");
    refuse(1500).await;
    assert_eq!(told().await, 1);
    let listed = client.get("/v1/budget-alerts").await.expect(200).json["data"][0].clone();
    assert_eq!((&listed["threshold"], &listed["limit_micros"]), (&json!("refused"), &json!(1500)));
    let path = format!("/v1/budgets/{}", made.string("id"));
    client.send(Method::PATCH, &path, Some(json!({"limit_micros": 2000}).to_string())).await.expect(200);
    assert_eq!(told().await, 1);
    refuse(2000).await;
    assert_eq!(told().await, 2);
    // Between two looks the day may end.
    client.send(Method::PATCH, &path, Some(json!({"limit_micros": 2500}).to_string())).await.expect(200);
    refuse(2500).await;
    turn(&app, "2030-01-02T00:00:05Z");
    assert_eq!((told().await, app.count("select count(*) from budget_alerts").await), (3, 3));
}

/// [B-41] Half of twice as much is another amount.
#[tokio::test]
async fn a_budget_whose_limit_was_raised_tells_of_the_thresholds_of_the_new_one_once() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    let id =
        client.post("/v1/budgets", &budget(&json!({"period": "month", "thresholds": [50, 100], "limit_micros": 1500}))).await.expect(201);
    let state = app.state();
    spend(&app, ada).await;
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts where limit_micros = 1500").await, 2);
    let path = format!("/v1/budgets/{}", id.string("id"));
    client.send(Method::PATCH, &path, Some(json!({"limit_micros": 3000}).to_string())).await.expect(200);
    for _ in 0..2 {
        evaluate_all(&state).await.unwrap();
        let told = "select count(*) from budget_alerts where limit_micros = 3000 and threshold = 'percent:50'";
        assert_eq!((app.count(told).await, app.count("select count(*) from budget_alerts").await), (1, 3));
    }
    spend(&app, ada).await;
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts where limit_micros = 3000").await, 2, "the whole of it too");
}

#[tokio::test]
async fn nothing_is_told_of_a_period_in_which_the_budget_was_not_there_or_another_one_nor_of_one_long_ended() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    let daily = |rest: Value| budget(&json!({"period": "day", "thresholds": [50], "limit_micros": rest}));
    let larger = client.post("/v1/budgets", &daily(json!(1_000_000))).await.expect(201).string("id");
    let state = app.state();
    turn(&app, "2030-01-10T23:59:59Z");
    spend(&app, ada).await;
    turn(&app, "2030-01-11T00:00:01Z");
    client.send(Method::PATCH, &format!("/v1/budgets/{larger}"), Some(json!({"limit_micros": 3000}).to_string())).await.expect(200);
    client.post("/v1/budgets", &daily(json!(3000))).await.expect(201);
    client.post("/v1/budgets", &budget(&json!({"period": "day", "thresholds": [], "forecast": true}))).await.expect(201);
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts").await, 0);
    turn(&app, "2030-01-11T12:00:00Z");
    spend(&app, ada).await;
    evaluate_all(&state).await.unwrap();
    // Today both are budgets, and the pace is what it is.
    assert_eq!(app.count("select count(*) from budget_alerts where period_start = '2030-01-11T00:00:00Z'").await, 2);
    assert_eq!(app.count("select count(*) from budget_alerts").await, 2);
    turn(&app, "2030-01-13T05:59:59Z");
    post_late(&app, ada, "2030-01-12T12:00:00Z").await;
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts where period_start = '2030-01-12T00:00:00Z'").await, 2);
    turn(&app, "2030-01-15T06:00:00Z");
    post_late(&app, ada, "2030-01-14T12:00:00Z").await;
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts").await, 4, "what comes six hours late is no news");
}

#[tokio::test]
async fn a_forecast_is_told_once_when_the_pace_leads_beyond_the_limit_and_not_of_a_period_that_is_over() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    client.post("/v1/budgets", &budget(&json!({"thresholds": [], "forecast": true}))).await.expect(201);
    let (state, told) = (app.state(), "select count(*) from budget_alerts where threshold = 'forecast' and spent_micros = 1500");
    turn(&app, "2030-01-02T00:00:00Z");
    spend(&app, ada).await;
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts").await, 0, "a thirtieth of the month says nothing");
    turn(&app, "2030-01-10T00:00:00Z");
    for _ in 0..2 {
        evaluate_all(&state).await.unwrap();
        assert_eq!((app.count(told).await, app.count("select count(*) from budget_alerts").await), (1, 1));
    }
    turn(&app, "2030-02-28T23:59:59Z");
    spend(&app, ada).await;
    turn(&app, "2030-03-01T00:00:01Z");
    evaluate_all(&state).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts").await, 1);
}

#[tokio::test]
async fn a_budget_that_cannot_be_looked_at_is_set_aside_and_keeps_no_other_from_its_turn() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    // It is for nobody, which no request can make, and stands before all others.
    app.as_owner(
        "insert into budgets (id, organization_id, name, scope, scope_id, period, limit_micros, currency, hard, thresholds, forecast, created_at, updated_at)
         values ('00000000-0000-0000-0000-000000000001', gen_random_uuid(), 'broken', 'user', 'nobody', 'month', 1, 'USD', false, '{50}', false, now(), now())",
    )
    .await;
    client.post("/v1/budgets", &budget(&json!({"thresholds": [50]}))).await.expect(201);
    spend(&app, ada).await;
    evaluate_all(&app.state()).await.unwrap();
    assert_eq!(app.count("select count(*) from budget_alerts").await, 1);
    let aside = "select count(*) from budgets where name = 'broken' and next_at = timestamptz '2030-01-01T01:00:00Z'";
    assert_eq!(app.count(aside).await, 1);
}

/// Each minute is another period with thresholds of its own, and each alert a message to each endpoint.
#[tokio::test]
async fn an_organization_whose_minutes_were_told_three_thousand_times_in_a_day_is_told_of_no_more_of_them_and_all_else_is() {
    let app = App::start().await;
    let ((ada, client), (eve, other)) = (owner(&app), owner(&app));
    for client in [&client, &other] {
        client.post("/v1/budgets", &budget(&json!({"period": "minute", "thresholds": [50]}))).await.expect(201);
    }
    let many = "insert into budget_alerts (id, budget_id, organization_id, period_start, threshold, spent_micros, limit_micros, currency, created_at)
        select gen_random_uuid(), b.id, b.organization_id, '2000-01-01'::timestamptz + n * interval '1 minute', 'percent:50', 1, 1, 'USD', $2
        from budgets b, generate_series(1, 3000) n where b.organization_id = $1";
    sqlx::query(many).bind(ada.uuid()).bind(app.clock.now()).execute(&app.database.owner).await.unwrap();
    for organization in [ada, eve] {
        spend(&app, organization).await;
    }
    assert_eq!(evaluate_all(&app.state()).await.unwrap(), 1);
    assert_eq!(client.get("/v1/budget-alerts").await.expect(200).json["data"][0]["spent_micros"], 1, "nothing new");
    // What is told once in a month is no less told for it.
    let month = client.post("/v1/budgets", &budget(&json!({"thresholds": [50]}))).await.expect(201).string("id");
    assert_eq!(evaluate_all(&app.state()).await.unwrap(), 1);
    let of_month = client.get(&format!("/v1/budget-alerts?budget_id={month}")).await.expect(200).json["data"].clone();
    assert_eq!(of_month.as_array().unwrap().len(), 1);
    assert_eq!(other.get("/v1/budget-alerts").await.expect(200).json["data"].as_array().unwrap().len(), 1);
    app.turn.advance(Duration::from_hours(24));
    spend(&app, ada).await;
    evaluate_all(&app.state()).await.unwrap();
    let newest = client.get("/v1/budget-alerts").await.expect(200).json["data"][0].clone();
    assert_eq!(newest["spent_micros"], 1500);
}

/// [B-79]
#[tokio::test]
async fn what_was_told_is_listed_to_its_organization_newest_first_by_budget_and_without_any_endpoint() {
    let app = App::start().await;
    let (ada, client) = owner(&app);
    let (_, eve) = owner(&app);
    let first = client.post("/v1/budgets", &budget(&json!({"thresholds": [50]}))).await.expect(201).string("id");
    let second = client.post("/v1/budgets", &budget(&json!({"period": "day"}))).await.expect(201).string("id");
    spend(&app, ada).await;
    evaluate_all(&app.state()).await.unwrap();
    turn(&app, "2030-01-02T00:00:00Z");
    spend(&app, ada).await;
    evaluate_all(&app.state()).await.unwrap();
    let of_second = client.get(&format!("/v1/budget-alerts?budget_id={second}")).await.expect(200).json;
    let told: Vec<(&str, &str)> = of_second["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| (alert["period_start"].as_str().unwrap(), alert["threshold"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("2030-01-02T00:00:00Z", "percent:50"), ("2030-01-01T00:00:00Z", "percent:50")]);
    let alert = client.get(&format!("/v1/budget-alerts?budget_id={first}")).await.expect(200).json["data"][0].clone();
    assert_eq!((&alert["spent_micros"], &alert["limit_micros"], &alert["currency"]), (&json!(1500), &json!(3000), &json!("USD")));
    assert_eq!((&alert["created_at"], &alert["budget_id"]), (&json!("2030-01-01T00:00:00Z"), &json!(first)));
    assert!(alert["id"].as_str().unwrap().starts_with("alr_"), "{alert}");
    // What was told stays when its budget is gone, and pages go on where they ended.
    client.delete(&format!("/v1/budgets/{second}")).await.expect(204);
    app.as_owner(
        "insert into budget_alerts select gen_random_uuid(), budget_id, organization_id, period_start - n * interval '1 day', threshold, 1, 1, 'USD', created_at
         from (select * from budget_alerts order by created_at, id limit 1) one, generate_series(1, 197) n",
    )
    .await;
    let (mut seen, mut path) = (Vec::new(), "/v1/budget-alerts".to_owned());
    for _ in 0..3 {
        let page = client.get(&path).await.expect(200).json;
        seen.extend(page["data"].as_array().unwrap().iter().map(|alert| (alert["created_at"].to_string(), alert["id"].to_string())));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/budget-alerts?cursor={cursor}");
    }
    assert_eq!(seen.len(), 200);
    assert!(seen.is_sorted_by(|one, next| one > next), "an alert is twice in it or in the wrong place");
    assert_eq!(eve.get("/v1/budget-alerts").await.expect(200).json["data"], json!([]));
    assert_eq!(eve.get(&format!("/v1/budget-alerts?budget_id={first}")).await.expect(200).json["data"], json!([]));
    client.get("/v1/budget-alerts?budget_id=x").await.expect(400);
    client.get("/v1/budget-alerts?cursor=x").await.expect(400);
    app.public.get("/v1/budget-alerts").await.expect(401);
}
