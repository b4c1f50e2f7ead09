//! The stream of usage events: whatever dies and however often a message comes, each request is settled once.

use std::collections::HashMap;

use billing_service::usage::UsageEvents;
use chassis::streams::{Handler, Message};
use contracts::Shard;
use contracts::usage::{FIELD, GROUP, TAKEN, UsageEvent};
use redis::streams::StreamPendingReply;
use testkit::eventually;

use crate::app::{App, GRANT};
use crate::gateway::RESERVED;

fn text(event: &UsageEvent) -> String {
    serde_json::to_string(event).unwrap()
}

/// Messages as the stream gives them to its handler.
pub fn messages(events: &[UsageEvent]) -> Vec<Message> {
    let message = |(number, event)| Message { id: format!("{number}-0"), fields: fields(event) };
    events.iter().enumerate().map(message).collect()
}

fn fields(event: &UsageEvent) -> HashMap<String, String> {
    [(FIELD.to_owned(), text(event)), (TAKEN.to_owned(), RESERVED.to_string())].into()
}

/// Messages that were read and not acknowledged.
async fn pending(app: &App, stream: &str) -> usize {
    let pending = redis::cmd("XPENDING").arg(stream).arg(GROUP).query_async::<StreamPendingReply>(&mut app.redis.redis.connection()).await;
    pending.map_or(0, |pending| pending.count())
}

/// [B-55] [B-56]
#[tokio::test]
async fn an_event_that_comes_many_times_is_settled_once_and_a_broken_one_does_not_hold_up_the_others() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let stream = Shard::of(organization).usage_stream();
    let mut events = vec!["not json".to_owned()];
    for _ in 0..20 {
        events.push(text(&app.used(organization).await));
    }
    for _ in 0..3 {
        for event in &events {
            app.publish(organization, event).await;
        }
    }
    // Every repetition was read and acknowledged, which takes it off the stream; the broken ones are left.
    eventually("the end of all others", || async { (app.length(&stream).await == 3).then_some(()) }).await;
    assert_eq!(app.balance(&client).await, (GRANT - 20 * 150, 0));
    assert_eq!(app.count("select count(*) from usage_events").await, 20);
    app.assert_clean().await;
}

/// [B-57]
#[tokio::test]
async fn an_event_that_is_twice_in_one_batch_is_settled_once() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let (one, other) = (app.used(organization).await, app.used(organization).await);
    let batch = messages(&[one.clone(), other.clone(), one.clone(), one, other]);
    UsageEvents::new(app.state()).handle(&batch).await.unwrap();
    assert_eq!(app.balance(&client).await, (GRANT - 2 * 150, 0));
    assert_eq!(app.count("select count(*) from usage_events").await, 2);
    assert_eq!(app.count("select count(*) from ledger_transactions where kind = 'settlement'").await, 2);
    app.assert_clean().await;
}

/// [B-58]
#[tokio::test]
async fn a_consumer_that_dies_between_commit_and_acknowledgement_settles_nothing_twice() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let stream = Shard::of(organization).usage_stream();
    let event = app.used(organization).await;
    // What a dead consumer did: took the message and committed its effect, and never acknowledged.
    UsageEvents::new(app.state()).handle(&messages(std::slice::from_ref(&event))).await.unwrap();
    app.publish(organization, &text(&event)).await;
    eventually("the acknowledgement", || async { (app.length(&stream).await == 0 && pending(&app, &stream).await == 0).then_some(()) })
        .await;
    assert_eq!(app.balance(&client).await, (GRANT - 150, 0));
    assert_eq!(app.count("select count(*) from usage_events").await, 1);
    app.assert_clean().await;
}

/// [B-58] [B12]
#[tokio::test]
async fn redis_killed_and_back_loses_no_settlement() {
    let mut app = App::start().await;
    let (organization, client) = app.organization();
    let stream = Shard::of(organization).usage_stream();
    let events = [app.used(organization).await, app.used(organization).await, app.used(organization).await];
    // The settlement of what is read waits for this lock: Redis dies with a message that is on its way, and with others unread.
    let mut lock = app.database.owner.begin().await.unwrap();
    sqlx::query("select from accounts where organization_id is not null for update").execute(&mut *lock).await.unwrap();
    app.publish(organization, &text(&events[0])).await;
    eventually("the first message under way", || async { (pending(&app, &stream).await > 0).then_some(()) }).await;
    app.publish(organization, &text(&events[1])).await;
    app.publish(organization, &text(&events[2])).await;
    app.redis.kill();
    lock.rollback().await.unwrap();
    app.redis.restart().await.unwrap();
    eventually("the settlements", || async { (app.balance(&client).await == (GRANT - 3 * 150, 0)).then_some(()) }).await;
    eventually("the acknowledgements", || async { (app.length(&stream).await == 0).then_some(()) }).await;
    assert_eq!(app.count("select count(*) from usage_events").await, 3);
    app.assert_clean().await;
}
