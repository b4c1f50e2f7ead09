//! Messages that cannot be handled: whose fault it is decides whether they come again for ever or are set aside.

use std::time::Duration;

use super::app::{App, GRANT};
use super::usage_events::messages;
use super::wallet::run;
use billing_service::organizations::AuthEvents;
use billing_service::usage::UsageEvents;
use chassis::config::Millis;
use chassis::postgres::PostgresConfig;
use chassis::streams::{Consumer, HandleError, Handler, Message, publish};
use contracts::Shard;
use contracts::events::AUTH_STREAM;
use contracts::usage::{FIELD, GROUP, Outcome, UsageEvent};
use money::TokenUsage;
use serde_json::json;
use testkit::eventually;
use tokio_util::sync::CancellationToken;

fn is_rejected(outcome: &Result<(), HandleError>) -> bool {
    matches!(outcome, Err(HandleError::Rejected(_)))
}

fn is_unavailable(outcome: &Result<(), HandleError>) -> bool {
    matches!(outcome, Err(HandleError::Unavailable(_)))
}

fn created(organization: identity::OrganizationId, at: chrono::DateTime<chrono::Utc>) -> Vec<(&'static str, String)> {
    let payload = json!({"organization_id": organization, "name": "Ada", "owner_id": "usr_0197f0a0000070008000000000000001",
        "billing_email": "ada@example.com", "created_at": at});
    vec![("id", "evt-1".into()), ("kind", "organization.created".into()), ("payload", payload.to_string()), ("traceparent", String::new())]
}

fn message(fields: &[(&str, String)]) -> Message {
    Message { id: "1-0".into(), fields: fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect() }
}

#[tokio::test]
async fn an_event_that_can_never_be_handled_is_rejected() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let handler = UsageEvents::new(app.state());
    let event = app.used(organization).await;
    let unreadable = Message { id: "1-0".into(), fields: [(FIELD.to_owned(), "not json".to_owned())].into() };
    assert!(is_rejected(&handler.handle(&[unreadable]).await), "unreadable");
    let (stranger, _) = app.organization();
    app.used(stranger).await;
    let foreign = UsageEvent { organization_id: stranger, ..event.clone() };
    assert!(is_rejected(&handler.handle(&messages(&[foreign])).await), "on the lease of somebody else");
    let mut endless = event.clone();
    endless.usage = TokenUsage::text(u64::MAX, u64::MAX);
    assert!(is_rejected(&handler.handle(&messages(&[endless])).await), "without an amount that fits");
    handler.handle(&messages(std::slice::from_ref(&event))).await.unwrap();
    let mut other = event;
    (other.usage, other.outcome) = (TokenUsage::text(11, 10), Outcome::Failed);
    assert!(is_rejected(&handler.handle(&messages(&[other])).await), "settled with other usage");
    let mut fields = created(organization, app.clock.now());
    fields[2].1 = "{}".into();
    assert!(is_rejected(&AuthEvents(app.state()).handle(&[message(&fields)]).await), "not an organization");
    app.assert_clean().await;
}

#[tokio::test]
async fn while_the_database_is_away_or_too_slow_no_event_is_at_fault() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let batch = messages(&[app.used(organization).await]);
    let fields = created(organization, app.clock.now());
    let mut impatient = app.config.postgres.clone();
    impatient.wait_timeout = Millis(Duration::from_millis(100));
    let away = PostgresConfig { url: "postgres://billing_app@127.0.0.1:1/billing".into(), ..impatient.clone() };
    let state = app.state_with(chassis::postgres::connect(&away, "test").unwrap());
    assert!(is_unavailable(&UsageEvents::new(state.clone()).handle(&batch).await), "away");
    assert!(is_unavailable(&AuthEvents(state).handle(&[message(&fields)]).await), "away");
    let state = app.state_with(chassis::postgres::connect(&impatient, "test").unwrap());
    let mut lock = app.database.owner.begin().await.unwrap();
    sqlx::query("lock table accounts, wallets in access exclusive mode").execute(&mut *lock).await.unwrap();
    assert!(is_unavailable(&UsageEvents::new(state.clone()).handle(&batch).await), "locked");
    assert!(is_unavailable(&AuthEvents(state).handle(&[message(&fields)]).await), "locked");
    lock.rollback().await.unwrap();
    UsageEvents::new(app.state()).handle(&batch).await.unwrap();
    app.assert_clean().await;
}

#[tokio::test]
async fn what_was_set_aside_is_settled_once_its_cause_is_mended_and_it_is_replayed() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    app.sell("gone", true).await;
    let event = app.used_of(organization, "gone").await;
    app.as_owner("create table hidden as select * from rate_cards where model = 'gone'; delete from rate_cards where model = 'gone'").await;
    let stream = Shard::of(organization).usage_stream();
    // One more member of the group, less patient than the service's own.
    let (state, stop) = (app.state(), CancellationToken::new());
    let _stop = stop.clone().drop_guard();
    let consumer = Consumer { claim_after: Duration::from_millis(20), max_deliveries: 3, ..state.consumer(&stream, GROUP) };
    tokio::spawn(async move { consumer.run(&state.redis, &UsageEvents::new(state.clone()), &stop).await });
    app.publish(organization, &serde_json::to_string(&event).unwrap()).await;
    let dead = format!("{stream}:dead");
    eventually("the message set aside", || async { (app.length(&dead).await == 1 && app.length(&stream).await == 0).then_some(()) }).await;
    assert_eq!(app.count("select count(*) from usage_events").await, 0);
    app.as_owner("insert into rate_cards overriding system value select * from hidden").await;
    run(&app, &["streams", "replay", "usage", "--actor", "ada", "--reason", "mended"]).await.unwrap();
    eventually("the settlement", || async { (app.balance(&client).await == (GRANT - 150, 0)).then_some(()) }).await;
    assert_eq!(app.length(&dead).await, 0);
    app.assert_clean().await;
}

#[tokio::test]
async fn events_of_the_auth_service_are_replayed_too() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let mut fields = created(organization, app.clock.now());
    fields.push(("dead_reason", "the cause that was mended".into()));
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    publish(&app.redis.redis, &format!("{AUTH_STREAM}:dead"), &fields, None).await.unwrap();
    run(&app, &["streams", "replay", "auth", "--actor", "ada", "--reason", "mended"]).await.unwrap();
    eventually("the wallet", || async { (app.count("select count(*) from wallets").await == 1).then_some(()) }).await;
    app.assert_clean().await;
}
