//! A meter that is made when there are many events already.

use billing_service::rollups::differences;
use identity::Scopes;
use serde_json::json;
use testkit::eventually::eventually;

use super::app::App;
use super::metering::{event, meter, send, statuses};

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
