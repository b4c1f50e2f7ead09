//! What one organization asks for leaves enough for the others.

use http::Method;
use identity::Scopes;
use serde_json::{Value, json};
use testkit::eventually;

use super::app::App;
use super::rollups::{PLAIN, insert};

const EXPORT: &str = "/v1/usage/export?format=jsonl&from=2030-01-01T00:00:00Z&to=2032-01-01T00:00:00Z";

#[tokio::test]
async fn who_takes_nothing_of_his_exports_has_four_of_them_and_nobody_else_has_fewer() {
    let app = App::start().await;
    let ((ada, client), (_, eve)) = (app.organization(), app.organization());
    // More than any buffer between the two holds.
    insert(&app, ada, 60_000, PLAIN).await;
    let mut begun = Vec::new();
    for _ in 0..4 {
        begun.push(client.begin(EXPORT).await);
    }
    assert!(begun.iter().all(|response| response.status() == 200));
    let refused = client.get(EXPORT).await.expect(429);
    assert_eq!((refused.header("retry-after"), &refused.json["code"]), ("1", &json!("too_many_at_once")));
    eve.get(EXPORT).await.expect(200);
    drop(begun);
    eventually("their places are free again", || async { (client.begin(EXPORT).await.status() == 200).then_some(()) }).await;
}

#[tokio::test]
async fn an_answer_has_ten_thousand_values_of_a_meter_at_most_and_says_what_to_ask_less_of() {
    let app = App::start().await;
    let (_, client) = app.organization_with(Scopes::all());
    let group = json!([{"name": "who", "path": ["who"]}]);
    for (name, aggregation, path) in [("jobs", "count", Value::Null), ("users", "unique", json!(["user"]))] {
        let meter = json!({"name": name, "event_type": "job.done", "aggregation": aggregation, "value_path": path, "group_by": group, "allow_overlap": true});
        client.post("/v1/meters", &meter).await.expect(201);
    }
    app.as_owner(
        "insert into meter_rollups select id, 'hour', '2030-01-01', jsonb_build_object('who', n::text), 1, 0, null from meters, generate_series(1, 10001) n;
         insert into meter_values (meter_id, window_start, groups, value) select id, '2030-01-01', jsonb_build_object('who', n::text), 'x' from meters, generate_series(1, 10001) n",
    )
    .await;
    let meters = client.get("/v1/meters").await.expect(200).json["data"].clone();
    for meter in meters.as_array().unwrap() {
        let path =
            format!("/v1/meters/{}/usage?window=hour&from=2030-01-01T00:00:00Z&to=2030-01-01T01:00:00Z", meter["id"].as_str().unwrap());
        let refused = client.get(&format!("{path}&group_by=who")).await.expect(422);
        let fields: Vec<&Value> = refused.json["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
        assert_eq!(fields, ["to", "group_by"]);
        assert_eq!(client.get(&path).await.expect(200).json["data"].as_array().unwrap().len(), 1);
    }
}

/// Each event is looked at by each meter of its type.
#[tokio::test]
async fn a_type_of_events_has_fifty_meters_at_most_and_an_event_that_all_of_them_look_deep_into_is_taken() {
    let app = App::start().await;
    let (_, client) = app.organization_with(Scopes::all());
    let deep = |leaf: usize| (0..15).map(|level| format!("p{level}")).chain([format!("leaf{leaf}")]).collect::<Vec<_>>();
    let meter = |number: usize| {
        let groups: Vec<Value> = (0..16).map(|leaf| json!({"name": format!("g{leaf}"), "path": deep(leaf)})).collect();
        let filters: Vec<Value> = (0..16).map(|leaf| json!({"path": deep(leaf), "values": ["x"]})).collect();
        json!({"name": format!("m{number}"), "event_type": "job.done", "aggregation": "count", "group_by": groups, "filters": filters, "allow_overlap": true})
    };
    for number in 0..50 {
        client.post("/v1/meters", &meter(number)).await.expect(201);
    }
    let refused = client.post("/v1/meters", &meter(50)).await.expect(409);
    assert_eq!((&refused.json["code"], &refused.json["errors"][0]["field"]), (&json!("too_many_meters"), &json!("event_type")));
    let other = json!({"name": "other", "event_type": "job.failed", "aggregation": "count"});
    client.post("/v1/meters", &other).await.expect(201);
    let leaves: serde_json::Map<String, Value> = (0..16).map(|leaf| (format!("leaf{leaf}"), json!("x"))).collect();
    let data = (0..15).rev().fold(Value::Object(leaves), |within, level| json!({format!("p{level}"): within, "fill": "y".repeat(3000)}));
    let event = json!({"specversion": "1.0", "id": "1", "source": "/a", "type": "job.done", "data": data}).to_string();
    let structured = client.header("content-type", "application/cloudevents+json");
    assert_eq!(structured.send(Method::POST, "/v1/usage-events", Some(event)).await.expect(200).json["results"][0]["status"], "accepted");
    let counted = "select coalesce(sum(events), 0)::bigint from (select events from meter_deltas union all select events from meter_rollups where grain = 'hour') counted";
    assert_eq!(app.count(counted).await, 50, "added up already or not");
}
