//! What compares rollups with rows compares all of it.

use super::app::App;
use super::metering::{event, meter, send, statuses};
use super::rollups::{PLAIN, insert};
use billing_service::rollups::{differences, meters, spend, usage};
use chassis::config::Millis;
use identity::Scopes;
use serde_json::json;
use sqlx::AssertSqlSafe;
use std::time::Duration;

async fn change(app: &App, statement: String) {
    let changed = sqlx::query(AssertSqlSafe(statement.clone())).execute(&app.database.owner).await.unwrap();
    assert!(changed.rows_affected() > 0, "{statement}");
}

/// Asserts that a change is told with these words, and that without it all is equal again.
async fn told(app: &App, there: String, back: String, words: &[&str]) {
    change(app, there.clone()).await;
    let lines = differences(&app.database.pool).await.unwrap();
    assert!(!lines.is_empty(), "nothing differs after {there}");
    for line in lines {
        assert!(words.iter().all(|word| line.contains(word)), "after {there}: {line}");
    }
    change(app, back).await;
    assert_eq!(differences(&app.database.pool).await.unwrap(), Vec::<String>::new());
}

/// [B-61]
#[tokio::test]
async fn every_column_of_both_grains_of_usage_and_of_meters_is_compared_with_the_rows_and_named_where_it_differs() {
    let app = App::with(|config| config.usage.roll_up = Millis(Duration::from_hours(1))).await;
    let (organization, client) = app.organization_with(Scopes::all());
    insert(&app, organization, 40, PLAIN).await;
    insert(&app, organization, 5, &PLAIN.replace("n * interval", "interval '40 days' + n * interval")).await;
    for aggregation in ["sum", "count", "max", "unique"] {
        meter(&client, aggregation, &json!({})).await;
    }
    let events: Vec<_> =
        (0..5).map(|n| event(&n.to_string(), app.clock.now() - chrono::TimeDelta::hours(n), &json!({"used": {"seconds": n}}))).collect();
    assert_eq!(statuses(send(&client, &events).await), ["accepted"; 5]);
    let pool = &app.database.pool;
    assert_eq!(differences(pool).await.unwrap(), Vec::<String>::new(), "nothing is in the rollups");
    while usage::fold(pool).await.unwrap() || spend::fold(pool).await.unwrap() || meters::fold(pool).await.unwrap() {}
    assert_eq!(app.count("select count(*) from usage_deltas").await + app.count("select count(*) from meter_deltas").await, 0);
    assert_eq!(differences(pool).await.unwrap(), Vec::<String>::new());
    let columns = [
        "requests",
        "input_tokens",
        "cached_input_tokens",
        "cache_write_tokens",
        "cache_write_1h_tokens",
        "output_tokens",
        "reasoning_tokens",
        "audio_input_tokens",
        "audio_output_tokens",
        "images",
        "price_micros",
        "cost_micros",
    ];
    for grain in ["hour", "day"] {
        let tables = columns.map(|column| ("usage_rollups", column)).into_iter();
        for (table, column) in tables.chain(["events", "amount", "most"].map(|column| ("meter_rollups", column))) {
            let by = |change| format!("update {table} set {column} = {column} {change} where grain = '{grain}'");
            told(&app, by("+ 1"), by("- 1"), &[&format!(" {grain} of "), &format!("say {column} ")]).await;
        }
    }
    told(
        &app,
        "insert into meter_values select meter_id, window_start, groups, 'x' from meter_values limit 1".to_owned(),
        "delete from meter_values where value = 'x'".to_owned(),
        &["hour of ", "lack 0 values and have 1"],
    )
    .await;
    told(
        &app,
        "update meter_values set value = 'x' where value = '3'".to_owned(),
        "update meter_values set value = '3' where value = 'x'".to_owned(),
        &["hour of ", "lack 1 values and have 1"],
    )
    .await;
    // What stands in one grain alone.
    for (table, grain) in [("usage_rollups", "hour"), ("usage_rollups", "day"), ("meter_rollups", "hour"), ("meter_rollups", "day")] {
        change(&app, format!("delete from {table} where grain = '{grain}'")).await;
        let lines = differences(pool).await.unwrap();
        assert!(
            !lines.is_empty() && lines.iter().all(|line| line.contains(&format!(" {grain} of ")) && line.contains(" nothing, not ")),
            "{lines:?}"
        );
        assert!(super::wallet::run(&app, &["usage", "verify"]).await.is_err());
        usage::rebuild(pool).await.unwrap();
        meters::rebuild(pool).await.unwrap();
        super::wallet::run(&app, &["usage", "verify"]).await.unwrap();
        while usage::fold(pool).await.unwrap() || meters::fold(pool).await.unwrap() {}
        assert_eq!(differences(pool).await.unwrap(), Vec::<String>::new());
    }
}
