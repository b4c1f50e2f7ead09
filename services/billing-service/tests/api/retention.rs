//! What is taken out when it is old, and what never is while something needs it.

use std::time::Duration;

use billing_service::budgets;
use billing_service::budgets::alerts::evaluate_all;
use billing_service::config::UsageConfig;
use billing_service::metering::retention;
use billing_service::rollups::{meters, spend, usage};
use billing_service::usage::partitions;
use chassis::config::Millis;
use chrono::{DateTime, TimeDelta, Utc};
use identity::Scopes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::budgets::{budget, owner, spend};
use super::metering::{event, meter, send, statuses, windows};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

async fn months(app: &App) -> i64 {
    app.count("select count(*) from pg_inherits where inhparent = 'usage_events'::regclass and inhrelid::regclass::text ~ '_2030_0[1-3]$'")
        .await
}

/// A month stays, and all later ones, as long as something of it is not in the rollups or may still be recorded in it.
#[tokio::test]
async fn a_month_of_usage_stays_while_a_hold_of_before_its_end_is_open_or_its_sums_are_not_in_the_rollups() {
    let app = App::with(|config| config.usage.roll_up = Millis(Duration::from_hours(1))).await;
    let pool = &app.database.pool;
    let (ada, _) = app.organization();
    let config = UsageConfig { roll_up: Millis(Duration::from_secs(1)), retention_months: 3, detach: true };
    let keep = async || partitions::keep(pool, &config, at("2030-08-01T00:00:00Z")).await.unwrap();
    let fold = async || {
        while usage::fold(pool).await.unwrap() {}
        while spend::fold(pool).await.unwrap() {}
    };
    partitions::keep(pool, &config, app.clock.now()).await.unwrap();
    let settled = app.hold(ada, 10, 10).await;
    app.settle(&settled, &app.usage(10, 10)).await.expect(200);
    let held = app.hold(ada, 10, 10).await;
    fold().await;
    keep().await;
    assert_eq!((months(&app).await, app.count("select count(*) from usage_events").await), (3, 1), "a hold is open");
    app.void(&held).await.expect(204);
    app.as_owner(
        "insert into leases (id, organization_id, currency, epoch, instance, state, funded_micros, held_micros, fundings, low_micros, opened_at,
           funded_at, deadline) values (gen_random_uuid(), gen_random_uuid(), 'USD', 1, 'x', 'open', 1, 0, 1, 0, '2030-01-31', '2030-01-31', '2040-01-01')",
    )
    .await;
    keep().await;
    assert_eq!(months(&app).await, 3, "a lease is open");
    app.as_owner("update leases set state = 'closed'").await;
    usage::rebuild(pool).await.unwrap();
    keep().await;
    assert_eq!(months(&app).await, 3, "something is not in the rollups");
    fold().await;
    keep().await;
    assert_eq!((months(&app).await, app.count("select count(*) from usage_events").await), (0, 0), "nothing needs it any more");
    assert_eq!(app.count("select sum(requests)::bigint from usage_by_day").await, 1);
    app.assert_clean().await;
}

/// [B-55] [B-59] [B-61]
#[tokio::test]
async fn old_events_go_by_the_month_their_sums_stay_and_who_repeats_one_is_refused() {
    let app = App::with(|config| config.usage.roll_up = Millis(Duration::from_hours(1))).await;
    let pool = &app.database.pool;
    let (_, client) = app.organization_with(Scopes::all());
    let rules = app.config.metering.rules();
    let now = app.clock.now();
    let month = DateTime::parse_from_rfc3339("2030-01-01T00:00:00Z").unwrap().to_utc();
    assert!(now >= month && now < month + TimeDelta::days(3), "this test is about the turn of a month");
    let mut all = Vec::new();
    for aggregation in ["sum", "count", "max", "unique"] {
        all.push(meter(&client, aggregation, &json!({})).await);
    }
    let old = |id: i64| event(&format!("old{id}"), month - TimeDelta::hours(id + 1), &json!({"used": {"seconds": id + 1}}));
    let events: Vec<Value> = (0..40).map(old).collect();
    let kept: Vec<Value> = (0..3).map(|id| event(&format!("new{id}"), month, &json!({"used": {"seconds": id + 1}}))).collect();
    assert_eq!(statuses(send(&client, &events).await).len(), 40);
    assert_eq!(statuses(send(&client, &kept).await), ["accepted"; 3]);
    let shown = async || {
        let mut shown = Vec::new();
        for meter in &all {
            for window in ["hour", "day", "month"] {
                let query = format!("from=2029-12-01T00:00:00Z&to=2030-01-08T00:00:00Z&window={window}");
                shown.push(windows(&client, meter, &query).await);
            }
        }
        shown
    };
    let before = shown().await;
    let keep = async |months, now: &str| retention::keep(pool, months, rules, at(now), &CancellationToken::new()).await.unwrap();
    meters::rebuild(pool).await.unwrap();
    assert_eq!(keep(3, "2030-04-01T00:00:00Z").await, 0, "the sums are not in the rollups yet");
    while meters::fold(pool).await.unwrap() {}
    assert_eq!(keep(0, "2040-04-01T00:00:00Z").await, 0, "nobody asked for it");
    assert_eq!(keep(3, "2030-03-31T23:59:59Z").await, 0, "the month has an instant that is young enough");
    let together = futures::future::join_all((0..4).map(|_| keep(3, "2030-04-01T00:00:00Z"))).await;
    assert_eq!((together.iter().sum::<i64>(), app.count("select count(*) from metered_events").await), (40, 3));
    assert_eq!(app.count("select sum(events)::bigint from metered_retired where finished").await, 40);
    assert_eq!(shown().await, before, "sums are gone with the events");
    meters::rebuild(pool).await.unwrap();
    assert_eq!(shown().await, before, "a rebuild lost what has no events any more");
    let later = meter(&client, "sum", &json!({"name": "later"})).await;
    let query = "from=2029-12-01T00:00:00Z&to=2030-01-08T00:00:00Z&window=month";
    assert_eq!(windows(&client, &later, query).await, ["01-01T00=6"], "a new meter counts what is kept");
    app.turn.set(at("2030-04-01T00:00:00Z"));
    assert_eq!(statuses(send(&client, &events[..1]).await), ["event_too_late"]);
}

#[tokio::test]
async fn alerts_and_messages_that_came_to_an_end_go_when_they_are_old_and_cannot_be_told_again() {
    let app = App::with(|config| config.webhooks_to_private = true).await;
    let (pool, now) = (&app.database.pool, app.clock.now());
    let (ada, client) = owner(&app);
    // Nobody listens there.
    client.post("/v1/webhook-endpoints", &json!({"url": "http://127.0.0.1:9/hook"})).await.expect(201);
    client.post("/v1/budgets", &budget(&json!({"thresholds": [50]}))).await.expect(201);
    spend(&app, ada).await;
    evaluate_all(&app.state()).await.unwrap();
    let counts =
        async || (app.count("select count(*) from webhook_deliveries").await, app.count("select count(*) from budget_alerts").await);
    let keep = async |days: i64| budgets::retention::keep(pool, 1, now + TimeDelta::days(days), &CancellationToken::new()).await.unwrap();
    // What is told of the period now is over by then.
    app.turn.advance(Duration::from_hours(64 * 24));
    keep(63).await;
    assert_eq!(counts().await, (1, 1), "it could be told again");
    keep(64).await;
    assert_eq!(counts().await, (1, 0), "a message waits");
    app.as_owner("update webhook_deliveries set state = 'failed'").await;
    keep(64).await;
    assert_eq!(counts().await, (0, 0));
}
