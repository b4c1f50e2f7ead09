//! What is left of a price after its cost, and who is told when that is less than nothing.

use billing_service::margin::{By, look, report};
use billing_service::rollups::usage;
use billing_service::usage::{Format, Overage};
use chrono::TimeDelta;
use futures::future::join_all;
use identity::OrganizationId;
use serde_json::Value;

use super::app::App;
use super::rollups::{PLAIN, insert, text_of};

/// [B-33]
#[tokio::test]
async fn margin_is_price_less_cost_by_each_dimension_and_is_for_services_with_the_scope_only() {
    let app = App::start().await;
    let ((ada, client), (eve, _)) = (app.organization(), app.organization());
    insert(&app, ada, 30, PLAIN).await;
    insert(&app, eve, 3, "10, 25, 'reported', 'completed', timestamptz '2030-01-01', timestamptz '2030-01-02', timestamptz '2030-01-01'")
        .await;
    let (from, to) = (app.clock.now(), app.clock.now() + TimeDelta::days(2));
    let margins = async |by| -> Vec<(String, i64)> {
        report(&app.database.pool, by, from, to).await.unwrap().into_iter().map(|row| (row.value, row.margin_micros)).collect()
    };
    for folded in [false, true] {
        assert_eq!(margins(By::Organization).await, [(eve.uuid().to_string(), -45), (ada.uuid().to_string(), 60)], "folded: {folded}");
        assert_eq!(margins(By::Day).await, [("2030-01-02".to_owned(), -45), ("2030-01-01".to_owned(), 60)]);
        assert_eq!(margins(By::Key).await, [(uuid::Uuid::nil().to_string(), 15)]);
        assert_eq!(margins(By::Model).await.iter().map(|(_, margin)| margin).sum::<i64>(), 15);
        while usage::fold(&app.database.pool).await.unwrap() {}
    }
    let path = "/v1/admin/margin?by=day&from=2030-01-01T00:00:00Z&to=2030-01-03T00:00:00Z";
    client.get(path).await.expect(404);
    app.private.get(path).await.expect(403);
    let served = app.service("margin:read").get(path).await.expect(200).json;
    assert_eq!((&served["data"][0]["value"], &served["data"][0]["margin_micros"]), (&Value::from("2030-01-02"), &Value::from(-45)));
}

/// [B-33]
#[tokio::test]
async fn a_negative_margin_is_told_once_for_each_dimension_and_day() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let state = app.state();
    let loss = "10, 25, 'reported', 'completed', timestamptz '2030-01-01', timestamptz '2030-01-01', timestamptz '2030-01-01'";
    insert(&app, organization, 1, loss).await;
    let told = join_all((0..64).map(|_| look(&state))).await.into_iter().flat_map(Result::unwrap);
    let mut told: Vec<(&str, i64)> = told.map(|alert| (alert.dimension, alert.margin_micros)).collect();
    told.sort_unstable();
    // The service looks when it starts, too: what it tells first, we do not. Nobody tells the same twice.
    let all = [("key", -15), ("model", -15), ("organization", -15)];
    assert!(told.len() <= all.len() && told.iter().all(|alert| all.contains(alert)), "{told:?}");
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
    assert_eq!(app.count("select count(*) from margin_alerts").await, 3);
    insert(&app, organization, 1, loss).await;
    assert_eq!(look(&state).await.unwrap(), []);
    app.turn.set("2030-01-02T12:00:00Z".parse().unwrap());
    insert(&app, organization, 1, &loss.replace("'2030-01-01', timestamptz '2030-01-01', ", "'2030-01-02', timestamptz '2030-01-02', "))
        .await;
    assert_eq!(look(&state).await.unwrap().len(), 3);
    assert_eq!(app.count("select count(*) from margin_alerts where day = '2030-01-02'").await, 3);
}

#[tokio::test]
async fn alerts_of_margins_are_listed_by_day_each_once_for_services_with_the_scope_and_in_the_terminal() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let loss = "10, 25, 'reported', 'completed', timestamptz '2030-01-01', timestamptz '2030-01-01', timestamptz '2030-01-01'";
    insert(&app, organization, 1, loss).await;
    look(&app.state()).await.unwrap();
    let reader = app.service("margin:read");
    let listed = reader.get("/v1/admin/margin/alerts").await.expect(200).json;
    let of = |name: &str| listed["data"].as_array().unwrap().iter().map(|alert| alert[name].clone()).collect::<Vec<_>>();
    assert_eq!((of("dimension"), &listed["next_cursor"]), (["organization", "model", "key"].map(Value::from).to_vec(), &Value::Null));
    assert_eq!(
        (&of("value")[..2], of("day")[0].clone()),
        (&[organization.uuid().to_string().into(), "sim-1".into()][..], "2030-01-01".into())
    );
    assert_eq!((of("price_micros")[0].clone(), of("margin_micros")[0].clone()), (10.into(), Value::from(-15)));
    app.as_owner(
        "insert into margin_alerts select 'model', 'm' || n, date '2030-01-02' + n % 3, 'USD', 1, 2, now() from generate_series(1, 197) n",
    )
    .await;
    let (mut seen, mut path) = (Vec::new(), "/v1/admin/margin/alerts".to_owned());
    for rows in [100, 100, 0] {
        let page = reader.get(&path).await.expect(200).json;
        let data = page["data"].as_array().unwrap();
        seen.extend(
            data.iter()
                .map(|alert| (alert["day"].as_str().unwrap().to_owned(), alert["dimension"].to_string(), alert["value"].to_string())),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        assert_eq!(data.len(), rows);
        path = format!("/v1/admin/margin/alerts?cursor={cursor}");
    }
    assert_eq!(seen.len(), 200);
    assert!(seen.is_sorted_by(|one, next| one > next), "an alert is twice in it or in the wrong place");
    client.get("/v1/admin/margin/alerts").await.expect(404);
    app.private.get("/v1/admin/margin/alerts").await.expect(403);
    reader.get("/v1/admin/margin/alerts?cursor=x").await.expect(400);
    super::wallet::run(&app, &["margin-alerts", "--limit", "3"]).await.unwrap();
}

/// [B-40]
#[tokio::test]
async fn what_was_written_off_is_in_the_export_of_operators_and_beside_the_margin_and_nowhere_else() {
    let app = App::with(|config| config.overage = Overage::Cap).await;
    let ((ada, client), (eve, _)) = (app.organization(), app.organization());
    for (organization, used) in [(ada, 150), (ada, 10), (eve, 100)] {
        let hold = app.hold(organization, 0, 100).await;
        app.settle(&hold, &app.usage(0, used)).await.expect(200);
    }
    // A request that was given up for dead is told after all, and cost more than was taken for it.
    let hold = app.hold(eve, 0, 100).await;
    app.turn.advance(std::time::Duration::from_hours(25));
    billing_service::reservations::sweep(&app.state()).await.unwrap();
    app.settle(&hold, &app.usage(0, 200)).await.expect(200);
    let (csv, ..) = text_of(&app, None, Format::Csv).await;
    let lines: Vec<Vec<&str>> = csv.split_terminator("\r\n").map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0][lines[0].len() - 3..], ["ended_at", "written_off_micros", "tags"]);
    let last: Vec<&str> = lines[1..].iter().map(|line| line[line.len() - 2]).collect();
    let (jsonl, ..) = text_of(&app, None, Format::Jsonl).await;
    let rows: Vec<Value> = jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let written_off: Vec<i64> = rows.iter().map(|row| row["written_off_micros"].as_i64().unwrap()).collect();
    assert_eq!(last, written_off.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut sorted = written_off.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 0, 600, 1200]);
    let (own, ..) = text_of(&app, Some(ada), Format::Jsonl).await;
    let (served, export) =
        (client.get("/v1/usage").await.expect(200).text, "/v1/usage/export?format=csv&from=2030-01-01T00:00:00Z&to=2031-01-01T00:00:00Z");
    for text in [own, served, client.get(export).await.expect(200).text] {
        assert!(!text.contains("written_off"), "what we lose is nobody's business: {text}");
    }
    let (from, to) = (app.clock.now() - TimeDelta::days(2), app.clock.now() + TimeDelta::days(1));
    for folded in [false, true] {
        let rows = report(&app.database.pool, By::Organization, from, to).await.unwrap();
        let of = |organization: OrganizationId| rows.iter().find(|row| row.value == organization.uuid().to_string()).unwrap();
        assert_eq!((of(ada).written_off_micros, of(eve).written_off_micros), (600, 1200), "folded: {folded}");
        assert_eq!((of(ada).requests, of(ada).price_micros), (2, 1200 + 120), "it is no revenue");
        for by in [By::Model, By::Key] {
            let sum: i64 = report(&app.database.pool, by, from, to).await.unwrap().iter().map(|row| row.written_off_micros).sum();
            assert_eq!(sum, 1800);
        }
        let days = report(&app.database.pool, By::Day, from, to).await.unwrap();
        let mut days: Vec<(&str, i64)> = days.iter().map(|row| (row.value.as_str(), row.written_off_micros)).collect();
        days.sort_unstable();
        assert_eq!(days, [("2030-01-01", 600), ("2030-01-02", 1200)]);
        while usage::fold(&app.database.pool).await.unwrap() {}
    }
    let served =
        app.service("margin:read").get("/v1/admin/margin?by=day&from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z").await.expect(200);
    assert_eq!((served.json["data"].as_array().unwrap().len(), &served.json["data"][0]["written_off_micros"]), (1, &Value::from(600)));
}
