//! A meter that is made when there are many events already.

use billing_service::rollups::{differences, earlier, meters};
use chrono::TimeDelta;
use identity::Scopes;
use serde_json::json;
use testkit::eventually::eventually;

use super::app::App;
use super::metering::{event, meter, send, statuses, windows};

/// [B-61] What comes while they are counted has keys before and behind those that are passed already.
#[tokio::test]
async fn a_meter_over_many_earlier_events_is_made_at_once_and_counts_each_of_them_and_of_those_that_come_meanwhile_once() {
    let app = App::start().await;
    let (_, client) = app.organization_with(Scopes::all());
    let (now, data) = (app.clock.now(), json!({"used": {"seconds": 2}, "who": "ann"}));
    assert_eq!(statuses(send(&client, &[event("m", now, &data)]).await), ["accepted"]);
    app.as_owner(
        "insert into metered_events select organization_id, source, 'm' || n, type, subject, occurred_at, counted_at, adjustment, data, received_at
         from metered_events, generate_series(1, 50000) n",
    )
    .await;
    let body = json!({"name": "sum", "event_type": "job.done", "aggregation": "sum", "value_path": ["used", "seconds"],
        "group_by": [{"name": "who", "path": ["who"]}], "allow_overlap": true});
    let made = client.post("/v1/meters", &body).await.expect(201);
    assert_eq!(made.json["is_complete"], false, "it waited for all of them");
    meter(&client, "unique", &json!({"value_path": ["who"]})).await;
    let mut sent = 0;
    eventually("they are counted", || {
        sent += 1;
        let events = ["a", "m2", "z"].map(|key| event(&format!("{key}-{sent}"), now, &data));
        let client = &client;
        async move {
            assert_eq!(statuses(send(client, &events).await), ["accepted"; 3]);
            let listed = client.get("/v1/meters").await.expect(200).json["data"].clone();
            listed.as_array().unwrap().iter().all(|meter| meter["is_complete"] == true).then_some(())
        }
    })
    .await;
    assert_eq!(differences(&app.state().pool).await.unwrap(), Vec::<String>::new());
    let counted = "select sum(amount)::bigint from (select meter_id, amount from meter_rollups where grain = 'day'
        union all select meter_id, amount from meter_deltas) c join meters m on m.id = c.meter_id where m.name = 'sum'";
    assert_eq!(app.count(counted).await, (50_001 + 3 * sent) * 2);
}

/// [B-61] Of a meter that is half counted nobody takes events away, what is counted is compared with as many events, and Stripe is told nothing.
#[tokio::test]
async fn a_meter_that_is_half_counted_agrees_with_as_many_events_and_they_stay_until_it_has_them() {
    let app = App::start().await;
    let (_, client) = app.organization_with(Scopes::all());
    let (pool, now, data) = (app.state().pool, app.clock.now(), json!({"used": {"seconds": 2}}));
    let events = ["1", "2", "3", "4"].map(|id| event(id, now, &data));
    assert_eq!(statuses(send(&client, &events).await), ["accepted"; 4]);
    let sum = meter(&client, "sum", &json!({})).await;
    let unique = meter(&client, "unique", &json!({})).await;
    app.as_owner("update meters set is_complete = false, counted_source = '/jobs', counted_id = '2', next_at = '9999-01-01'").await;
    meters::rebuild(&pool).await.unwrap();
    let (from, to) = (now.date_naive(), now.date_naive() + TimeDelta::days(1));
    let query = format!("from={from}T00:00:00Z&to={to}T00:00:00Z&window=month");
    let counted = async || {
        assert_eq!(differences(&pool).await.unwrap(), Vec::<String>::new());
        (windows(&client, &sum, &query).await, windows(&client, &unique, &query).await)
    };
    let count = async |sum: &str| {
        let (sums, values) = counted().await;
        assert!(sums[0].ends_with(&format!("={sum}")) && values[0].ends_with("=1"), "{sums:?} {values:?}");
    };
    count("4").await;
    assert_eq!(statuses(send(&client, &[event("12", now, &data), event("5", now, &data)]).await), ["accepted"; 2]);
    count("6").await;
    app.as_owner(
        "insert into stripe_meters (id, event_name, display_name, source, meter_name, aggregation, decimals, formula, since, next_attempt_at, created_at)
         select gen_random_uuid(), name, name, 'meter', name, aggregation, 0, 'last', '2000-01-01', '9999-01-01', created_at from meters",
    )
    .await;
    let reported = "select count(*) from stripe_meters s, lateral stripe_meter_counts(s.id, '2000-01-01', '2100-01-01')";
    let retired = "select metered_events_retire('2100-01-01', 10)";
    while meters::fold(&pool).await.unwrap() {}
    assert_eq!((app.count(reported).await, app.count(retired).await), (0, 0));
    app.as_owner("update meters set next_at = null").await;
    while earlier::step(&app.state()).await.unwrap() {}
    eventually("it is counted", || async { (app.count("select count(*) from meters where is_complete").await == 2).then_some(()) }).await;
    count("12").await;
    eventually("all is in the rollups", || async {
        meters::fold(&pool).await.unwrap();
        (app.count("select count(*) from meter_deltas").await == 0).then_some(())
    })
    .await;
    assert_eq!((app.count(reported).await, app.count(retired).await), (2, 6));
}
