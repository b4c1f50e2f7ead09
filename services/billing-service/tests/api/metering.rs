//! Events from any service and the meters that count them.

use super::app::App;
use billing_service::rollups::meters;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use http::Method;
use identity::Scopes;
use serde_json::{Value, json};
use testkit::http::{Answer, TestClient};

const BATCH: &str = "application/cloudevents-batch+json";
const ONE: &str = "application/cloudevents+json";

pub fn event(id: &str, time: DateTime<Utc>, data: &Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/jobs", "type": "job.done", "time": time, "data": data})
}

pub async fn send(client: &TestClient, events: &[Value]) -> Answer {
    client.header("content-type", BATCH).send(Method::POST, "/v1/usage-events", Some(json!(events).to_string())).await
}

pub fn statuses(answer: Answer) -> Vec<String> {
    let results = answer.expect(200).json["results"].as_array().unwrap().clone();
    results.iter().map(|result| result["code"].as_str().or(result["status"].as_str()).unwrap().to_owned()).collect()
}

pub async fn meter(client: &TestClient, aggregation: &str, more: &Value) -> String {
    let mut body = json!({"name": aggregation, "event_type": "job.done", "aggregation": aggregation, "value_path": ["used", "seconds"], "allow_overlap": true});
    if aggregation == "count" {
        body["value_path"] = Value::Null;
    }
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    client.post("/v1/meters", &body).await.expect(201).string("id")
}

/// `start=value` of each window.
pub async fn windows(client: &TestClient, meter: &str, query: &str) -> Vec<String> {
    let answer = client.get(&format!("/v1/meters/{meter}/usage?{query}")).await.expect(200).json;
    let text = |row: &Value| {
        let groups: Vec<&str> = row["groups"].as_object().unwrap().values().map(|value| value.as_str().unwrap_or("-")).collect();
        format!("{}{}={}", &row["start"].as_str().unwrap()[5..13], groups.concat(), row["value"].as_str().unwrap())
    };
    answer["data"].as_array().unwrap().iter().map(text).collect()
}

async fn start() -> (App, TestClient) {
    let app = App::start().await;
    let (_, client) = app.organization_with(Scopes::all());
    (app, client)
}

/// [B-56] [B-57] Its answer was lost: whoever is told that it counts nowhere sends it once more under another id, and it counts twice.
#[tokio::test]
async fn what_was_taken_is_a_duplicate_though_it_would_be_refused_by_now() {
    let (app, client) = start().await;
    let (taken, data) = (app.clock.now() - TimeDelta::days(34), json!({"used": {"seconds": "many"}}));
    let events = [event("1", taken, &data), event("2", taken, &data)];
    assert_eq!(statuses(send(&client, &events[..1]).await), ["adjusted"], "no meter counts it");
    meter(&client, "sum", &json!({"filters": [{"path": ["used", "seconds"], "values": ["many"]}]})).await;
    assert_eq!(statuses(send(&client, &events).await), ["duplicate", "invalid_value"]);
    app.turn.advance(std::time::Duration::from_hours(48));
    assert_eq!(
        statuses(send(&client, &[&events[..], &events[..]].concat()).await),
        ["duplicate", "invalid_value", "duplicate", "invalid_value"]
    );
    assert_eq!(app.count("select count(*) from metered_events").await, 1);
}

/// [B-55] What is added up must be what was read.
#[tokio::test]
async fn a_value_that_would_add_up_to_nothing_is_refused() {
    let (app, client) = start().await;
    let sum = meter(&client, "sum", &json!({})).await;
    let now = app.clock.now();
    let events = ["1e5", "1e005", "1E+05", "1e-006"].map(|text| event(text, now, &json!({"used": {"seconds": text}})));
    assert_eq!(statuses(send(&client, &events).await), ["accepted", "invalid_value", "accepted", "invalid_value"]);
    while meters::fold(&app.state().pool).await.unwrap() {}
    assert_eq!(app.count("select amount::bigint from meter_rollups where grain = 'hour'").await, 200_000, "{sum}");
}

/// [B-55] [B-57]
#[tokio::test]
async fn each_event_of_a_batch_has_its_own_result_and_a_repetition_in_it_or_after_it_counts_once() {
    let (app, client) = start().await;
    let sum = meter(&client, "sum", &json!({})).await;
    let now = app.clock.now();
    let data = json!({"used": {"seconds": 1.5}});
    let batch = [
        event("1", now, &data),
        event("2", now, &json!({"used": {"seconds": "0.25"}})),
        event("1", now, &data),
        json!({"specversion": "1.0", "id": "x"}),
        event("3", now, &json!({"used": {"seconds": -1}})),
        event("4", now, &json!({})),
    ];
    let expected = ["accepted", "accepted", "duplicate", "invalid_event", "invalid_value", "invalid_value"];
    assert_eq!(statuses(send(&client, &batch).await), expected);
    assert_eq!(statuses(send(&client, &batch[..2]).await), ["duplicate", "duplicate"]);
    assert_eq!(windows(&client, &sum, "from=2030-01-01T00:00:00Z&to=2030-01-01T01:00:00Z&window=hour").await, ["01-01T00=1.75"]);
    assert_eq!(app.count("select count(*) from metered_events").await, 2);
}

/// [B-56] [B11]
#[tokio::test]
async fn a_write_that_fails_leaves_no_claim_and_the_same_batch_is_taken_whole_afterwards() {
    let (app, client) = start().await;
    let count = meter(&client, "count", &json!({})).await;
    let good = event("1", app.clock.now(), &json!({}));
    app.as_owner("alter table meter_deltas rename to gone").await;
    send(&client, std::slice::from_ref(&good)).await.expect(500);
    app.as_owner("alter table gone rename to meter_deltas").await;
    assert_eq!(statuses(send(&client, std::slice::from_ref(&good)).await), ["accepted"]);
    assert_eq!(windows(&client, &count, "from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z&window=day").await, ["01-01T00=1"]);
}

/// [B-55] JSON to everybody but Postgres, whose numbers end somewhere.
#[tokio::test]
async fn a_number_that_the_database_cannot_keep_spoils_its_own_event_and_no_other_of_the_batch() {
    let (app, client) = start().await;
    let count = meter(&client, "count", &json!({})).await;
    let small = format!("0.{}1", "0".repeat(20_000));
    for (round, number) in ["1e-20000", "1E-16384", &small].into_iter().enumerate() {
        let mut events: Vec<String> =
            (0..1_000).map(|id| event(&format!("{round}-{id}"), app.clock.now(), &json!({})).to_string()).collect();
        events[500] = events[500].replace("\"data\":{}", &format!("\"data\":{{\"x\":{number}}}"));
        assert!(events[500].contains(number), "{}", events[500]);
        let body = format!("[{}]", events.join(","));
        let answer = client.header("content-type", BATCH).send(Method::POST, "/v1/usage-events", Some(body)).await.expect(200);
        let results = answer.json["results"].as_array().unwrap();
        let refused: Vec<&Value> = results.iter().filter(|result| result["status"] != "accepted").collect();
        assert_eq!((results.len(), refused.len()), (1_000, 1), "{refused:?}");
        assert_eq!((&refused[0]["index"], &refused[0]["code"]), (&json!(500), &json!("invalid_event")));
        assert!(refused[0]["detail"].as_str().unwrap().starts_with("data must have numbers"), "{}", refused[0]);
    }
    assert_eq!(windows(&client, &count, "from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z&window=day").await, ["01-01T00=2997"]);
}

/// [B-55] [B-57]
#[tokio::test(flavor = "multi_thread")]
async fn the_same_events_from_many_senders_in_opposite_orders_are_each_taken_by_one() {
    let (app, client) = start().await;
    let count = meter(&client, "count", &json!({})).await;
    let events: Vec<Value> = (0..50).map(|id| event(&id.to_string(), app.clock.now(), &json!({}))).collect();
    let back: Vec<Value> = events.iter().rev().cloned().collect();
    let answers = join_all((0..64).map(|sender| send(&client, if sender % 2 == 0 { &events } else { &back }))).await;
    let taken = answers.into_iter().flat_map(statuses).filter(|status| status == "accepted").count();
    assert_eq!(taken, 50);
    assert_eq!(windows(&client, &count, "from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z&window=day").await, ["01-01T00=50"]);
}

/// [B-59]
#[tokio::test]
async fn a_late_event_counts_in_its_month_while_that_is_open_then_as_an_adjustment_and_beyond_the_window_or_ahead_not_at_all() {
    let (app, client) = start().await;
    let count = meter(&client, "count", &json!({})).await;
    let counted = app.metric("billing_metered_events_total").await;
    let occurred: DateTime<Utc> = "2029-12-31T23:30:00Z".parse().unwrap();
    let status = async |id: &str, time| statuses(send(&client, &[event(id, time, &json!({}))]).await).remove(0);
    assert_eq!(status("own", occurred).await, "accepted");
    app.turn.set("2030-01-04T00:00:00Z".parse().unwrap());
    assert_eq!(status("adjusted", occurred).await, "adjusted");
    assert_eq!(status("late", app.clock.now() - TimeDelta::days(35) - TimeDelta::seconds(1)).await, "event_too_late");
    assert_eq!(status("ahead", app.clock.now() + TimeDelta::minutes(5)).await, "accepted");
    assert_eq!(status("future", app.clock.now() + TimeDelta::minutes(5) + TimeDelta::seconds(1)).await, "event_in_future");
    let months = windows(&client, &count, "from=2029-12-01T00:00:00Z&to=2030-02-01T00:00:00Z&window=month").await;
    assert_eq!(months, ["12-01T00=1", "01-01T00=2"]);
    let original = "select count(*) from metered_events where adjustment and occurred_at = '2029-12-31T23:30:00Z' and counted_at = '2030-01-04T00:00:00Z'";
    assert_eq!(app.count(original).await, 1, "the adjustment lost its own instant");
    assert!(app.metric("billing_metered_events_total").await >= counted + 5.0);
}

#[tokio::test]
async fn an_event_comes_in_headers_or_as_json_and_a_single_one_that_is_refused_is_no_success() {
    let (app, client) = start().await;
    let headers = client.header("ce-specversion", "1.0").header("ce-id", "h").header("ce-source", "/jobs").header("ce-type", "job.done");
    assert_eq!(headers.post("/v1/usage-events", &json!({"used": 1})).await.expect(200).json["results"][0]["status"], "accepted");
    let one = client.header("content-type", ONE);
    let post = async |event: &Value| one.send(Method::POST, "/v1/usage-events", Some(event.to_string())).await;
    post(&event("1", app.clock.now(), &json!({}))).await.expect(200);
    let old = post(&event("2", "2020-01-01T00:00:00Z".parse().unwrap(), &json!({}))).await.expect(422);
    assert_eq!(old.json["code"], "event_too_late");
    client.post("/v1/usage-events", &json!({})).await.expect(415);
    let many: Vec<Value> = (0..1_001).map(|id| event(&id.to_string(), app.clock.now(), &Value::Null)).collect();
    send(&client, &many).await.expect(422);
    let (_, reader) = app.organization();
    send(&reader, &[]).await.expect(403);
    reader.post("/v1/meters", &json!({"name": "m", "event_type": "t", "aggregation": "count"})).await.expect(403);
    assert_eq!(app.count("select count(*) from metered_events").await, 2);
}

#[tokio::test]
async fn a_service_of_our_own_reports_for_an_organization_with_the_scope_for_it() {
    let app = App::start().await;
    let (organization, client) = app.organization_with(Scopes::all());
    let count = meter(&client, "count", &json!({})).await;
    let path = format!("/internal/v1/usage-events?organization={organization}");
    let body = json!([event("1", app.clock.now(), &json!({}))]).to_string();
    let post = async |service: &TestClient| service.header("content-type", BATCH).send(Method::POST, &path, Some(body.clone())).await;
    post(&app.private).await.expect(403);
    assert_eq!(statuses(post(&app.service("usage:write")).await), ["accepted"]);
    assert_eq!(windows(&client, &count, "from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z&window=day").await, ["01-01T00=1"]);
}

/// [B-60]
#[tokio::test]
async fn windows_are_half_open_in_utc_and_apart_by_groups_and_filters() {
    let (app, client) = start().await;
    app.turn.set("2030-03-02T00:00:00Z".parse().unwrap());
    let (_, other) = app.organization_with(Scopes::all());
    let groups = json!([{"name": "region", "path": ["region"]}, {"name": "tier", "path": ["tier"]}]);
    let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    let data = |seconds: &str, region: Value| json!({"used": {"seconds": seconds}, "region": region, "tier": "free"});
    let batch = [
        event("1", at("2030-02-28T22:59:59.999999Z"), &data("1.1", json!("eu"))),
        event("2", at("2030-02-28T23:00:00Z"), &data("2.2", json!("eu"))),
        event("3", at("2030-02-28T23:59:59.999999Z"), &data("2.2", json!("us"))),
        event("4", at("2030-03-01T00:00:00Z"), &data("5", Value::Null)),
    ];
    send(&client, &batch).await.expect(200);
    // Made after the events: a meter counts what came before it too.
    let ids: Vec<String> = {
        let mut ids = Vec::new();
        for aggregation in ["sum", "count", "max", "unique"] {
            ids.push(meter(&client, aggregation, &json!({"group_by": groups})).await);
        }
        ids
    };
    let hours = "from=2030-02-28T22:00:00Z&to=2030-03-01T00:00:00Z&window=hour";
    assert_eq!(windows(&client, &ids[0], hours).await, ["02-28T22=1.1", "02-28T23=4.4"], "the end is not in it");
    assert_eq!(windows(&client, &ids[1], hours).await, ["02-28T22=1", "02-28T23=2"]);
    assert_eq!(windows(&client, &ids[2], hours).await, ["02-28T22=1.1", "02-28T23=2.2"]);
    assert_eq!(windows(&client, &ids[3], hours).await, ["02-28T22=1", "02-28T23=1"]);
    let months = "from=2030-02-01T00:00:00Z&to=2030-04-01T00:00:00Z&window=month";
    assert_eq!(windows(&client, &ids[0], &format!("{months}&group_by=region")).await, ["02-01T00eu=3.3", "02-01T00us=2.2", "03-01T00-=5"]);
    assert_eq!(windows(&client, &ids[3], months).await, ["02-01T00=2", "03-01T00=1"], "a value in two hours of a month is one");
    let filtered = meter(&client, "count", &json!({"name": "eu", "filters": [{"path": ["region"], "values": ["eu"]}]})).await;
    assert_eq!(windows(&client, &filtered, months).await, ["02-01T00=2"]);
    for query in [
        "from=2030-02-01T00:30:00Z&to=2030-04-01T00:00:00Z&window=day",
        "from=2030-02-01T00:00:00Z&to=2030-02-01T00:00:00Z&window=day",
        "from=2030-02-01T00:00:00Z&to=2030-03-01T00:00:00Z&window=day&group_by=nothing",
    ] {
        client.get(&format!("/v1/meters/{}/usage?{query}", ids[0])).await.expect(422);
    }
    // Somebody else's meter does not exist [B-79].
    other.get(&format!("/v1/meters/{}/usage?{months}", ids[0])).await.expect(404);
    assert_eq!(other.get("/v1/meters").await.expect(200).json["data"], json!([]));
}

/// [B-62]
#[tokio::test]
async fn a_meter_that_would_count_an_event_of_another_again_is_refused_unless_that_is_declared_and_shown() {
    let (_app, client) = start().await;
    let definition = |name: &str, values: &[&str], allow: bool| json!({"name": name, "event_type": "job.done", "aggregation": "count", "filters": [{"path": ["tier"], "values": values}], "allow_overlap": allow});
    let first = client.post("/v1/meters", &definition("free", &["free"], false)).await.expect(201).string("id");
    client.post("/v1/meters", &definition("pro", &["pro"], false)).await.expect(201);
    assert_eq!(client.post("/v1/meters", &definition("all", &["free", "team"], false)).await.expect(409).json["code"], "meters_overlap");
    let both = client.post("/v1/meters", &definition("all", &["free", "team"], true)).await.expect(201);
    assert_eq!(both.json["overlaps_with"], json!([first]));
    assert_eq!(client.post("/v1/meters", &definition("pro", &["other"], false)).await.expect(409).json["code"], "meter_exists");
    let listed = client.get("/v1/meters").await.expect(200).json;
    let overlapping: Vec<&str> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|meter| meter["overlaps_with"] != json!([]))
        .map(|meter| meter["name"].as_str().unwrap())
        .collect();
    assert_eq!(overlapping, ["all", "free"]);
    let again = client.header("idempotency-key", "k");
    let made = again.post("/v1/meters", &definition("new", &["new"], false)).await.expect(201);
    assert_eq!(again.post("/v1/meters", &definition("new", &["new"], false)).await.expect(201).json, made.json);
}

/// [B-61]
#[tokio::test(flavor = "multi_thread")]
async fn meters_are_equal_to_the_events_before_between_and_after_rollups_and_rebuilds() {
    let (app, client) = start().await;
    app.turn.set("2030-02-02T00:00:00Z".parse().unwrap());
    let mut ids = Vec::new();
    for aggregation in ["sum", "count", "max", "unique"] {
        ids.push(meter(&client, aggregation, &json!({"group_by": [{"name": "region", "path": ["region"]}]})).await);
    }
    let mut seed = 20_260_728_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..6 {
        let batch: Vec<Value> = (0..100)
            .map(|_| {
                let time = app.clock.now() - TimeDelta::minutes(i64::try_from(random(60 * 24 * 34)).unwrap());
                let data = json!({"used": {"seconds": format!("{}.{}", random(50), random(1_000))}, "region": format!("r{}", random(3))});
                event(&random(400).to_string(), time, &data)
            })
            .collect();
        send(&client, &batch).await.expect(200);
        match round % 3 {
            0 => while meters::fold(&app.database.pool).await.unwrap() {},
            1 => meters::rebuild(&app.database.pool).await.unwrap(),
            _ => {}
        }
        for (id, aggregate) in ids.iter().zip(["sum(n)", "count(*)", "max(n)", "count(distinct n)"]) {
            let raw = format!(
                "select to_char(date_trunc('day', counted_at, 'UTC') at time zone 'UTC', 'MM-DD') || 'T00' || region || '=' || trim_scale(({aggregate})::numeric)
                 from (select counted_at, data ->> 'region' as region, (data #>> '{{used,seconds}}')::numeric as n from metered_events) events
                 group by date_trunc('day', counted_at, 'UTC'), region order by date_trunc('day', counted_at, 'UTC'), region"
            );
            // Values are told apart by their spelling.
            let raw = if aggregate.contains("distinct") { raw.replace("::numeric as n", " as n") } else { raw };
            let expected: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(raw)).fetch_all(&app.database.owner).await.unwrap();
            let counted = windows(&client, id, "from=2029-12-01T00:00:00Z&to=2030-03-01T00:00:00Z&window=day&group_by=region").await;
            assert_eq!(counted, expected, "{aggregate} in round {round}");
        }
    }
}

/// One organization's event must not stop the sums of all the others.
#[tokio::test]
async fn a_value_to_group_by_that_is_too_long_for_a_key_is_refused_and_one_that_was_there_before_its_meter_counts_by_its_beginning() {
    let (app, client) = start().await;
    let now = app.clock.now();
    // No two bytes alike enough to be compressed.
    let long: String = (0..3000_u32).map(|n| char::from_u32(0x4e00 + n * 7919 % 20_000).unwrap()).collect();
    let data = json!({"used": {"seconds": 1}, "region": long});
    assert_eq!(statuses(send(&client, &[event("before", now, &data)]).await), ["accepted"]);
    let count = meter(&client, "count", &json!({"group_by": [{"name": "region", "path": ["region"]}]})).await;
    assert_eq!(statuses(send(&client, &[event("after", now, &data)]).await), ["invalid_value"]);
    assert_eq!(statuses(send(&client, &[event("fine", now, &json!({"region": "x".repeat(256)}))]).await), ["accepted"]);
    while meters::fold(&app.state().pool).await.unwrap() {}
    assert_eq!(app.count("select count(*) from meter_deltas").await, 0);
    let windows = windows(&client, &count, "from=2030-01-01T00:00:00Z&to=2030-01-01T01:00:00Z&window=hour&group_by=region").await;
    assert_eq!(windows.len(), 2, "{windows:?}");
}
