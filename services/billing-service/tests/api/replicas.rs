//! Two replicas that settle at the same time.

use std::time::Duration;

use super::app::{App, GRANT};
use super::usage_events::messages;
use billing_service::usage::UsageEvents;
use chassis::config::Millis;
use chassis::streams::{Handler, Message};
use contracts::usage::UsageEvent;
use futures::future::join_all;

/// The handler of one more replica. It gives up on a lock just before the database would look for a deadlock, so that none is
/// mended unseen by a retry.
fn replica(app: &App) -> UsageEvents {
    let mut config = app.config.postgres.clone();
    config.wait_timeout = Millis(Duration::from_millis(900));
    UsageEvents::new(app.state_with(chassis::postgres::connect(&config, "test").unwrap()))
}

async fn settle_at_once(replicas: &[UsageEvents; 2], batches: [Vec<Message>; 2]) {
    let [one, other] = &batches;
    let (one, other) = tokio::join!(replicas[0].handle(one), replicas[1].handle(other));
    one.unwrap();
    other.unwrap();
}

/// [B-24] [B6]
#[tokio::test(flavor = "multi_thread")]
async fn batches_of_the_same_organizations_in_opposite_orders_wait_for_each_other_in_a_line() {
    const ROUNDS: i64 = 12;
    let app = App::start().await;
    let organizations: Vec<_> = (0..4).map(|_| app.organization()).collect();
    let replicas = [replica(&app), replica(&app)];
    for _ in 0..ROUNDS {
        let events = async || join_all(organizations.iter().map(|(organization, _)| app.used(*organization))).await;
        let (one, other) = (events().await, events().await.into_iter().rev().collect::<Vec<_>>());
        Box::pin(settle_at_once(&replicas, [messages(&one), messages(&other)])).await;
    }
    for (_, client) in &organizations {
        assert_eq!(app.balance(client).await, (GRANT - ROUNDS * 2 * 150, 0));
    }
    app.assert_clean().await;
}

/// [B-24]
#[tokio::test(flavor = "multi_thread")]
async fn batches_that_touch_the_accounts_of_the_house_in_opposite_orders_wait_for_each_other_in_a_line() {
    const ROUNDS: i64 = 12;
    let app = App::start().await;
    // One model costs us nothing, and one costs nobody else: their settlements touch different accounts of the house.
    for (model, column) in [("ours", "cost"), ("given", "price")] {
        app.sell(model, true).await;
        let statement = format!("update rate_cards set {column}_input = 0, {column}_output = 0 where model = '{model}'");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&app.database.owner).await.unwrap();
    }
    let replicas = [replica(&app), replica(&app)];
    let used = async |model: &str| -> UsageEvent { app.used_of(app.organization().0, model).await };
    for _ in 0..ROUNDS {
        let one = messages(&[used("ours").await, used("given").await]);
        let other = messages(&[used("given").await, used("ours").await]);
        Box::pin(settle_at_once(&replicas, [one, other])).await;
    }
    assert_eq!(app.count("select count(*) from usage_events").await, ROUNDS * 4);
    app.assert_clean().await;
}
