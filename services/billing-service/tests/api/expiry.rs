//! Holds of processes that died: they end at their deadline, whoever notices first.

use std::time::Duration;

use super::app::{App, GRANT};
use billing_service::reservations::sweep;
use chassis::config::Millis;
use serde_json::json;
use testkit::eventually;

/// A service whose own sweeper comes too late for the test.
async fn without_sweeper(grant: i64) -> App {
    App::with(|config| (config.sweep, config.signup_grant) = (Millis(Duration::from_hours(1)), grant)).await
}

const HELD: &str = "select count(*) from reservations where state = 'held'";

/// [B-42] [B-43]
#[tokio::test]
async fn a_hold_of_a_dead_process_ends_at_its_deadline_and_late_usage_is_still_recorded() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let reservation = app.reserve(&app.reservation(organization, app.request(), 100, 100)).await.expect(201).string("id");
    app.turn.advance(Duration::from_secs(599));
    billing_service::reservations::sweep(&app.state()).await.unwrap();
    assert_eq!(app.balance(&client).await.1, 1500, "ended before its deadline");
    app.turn.advance(Duration::from_secs(1));
    eventually("the end of the hold", || async { (app.balance(&client).await == (GRANT, 0)).then_some(()) }).await;
    let row = client.get("/v1/usage").await.expect(200).json["data"][0].clone();
    assert_eq!((&row["counted_by"], &row["price_micros"]), (&json!("abandoned"), &json!(0)));
    app.settle(&reservation, &app.usage(10, 10)).await.expect(200);
    let rows = client.get("/v1/usage").await.expect(200).json["data"].clone();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["counted_by"], &rows[0]["price_micros"]), (1, &json!("reported"), &json!(150)));
    assert_eq!(app.balance(&client).await, (GRANT - 150, 0));
    app.assert_clean().await;
}

/// [B-42]
#[tokio::test]
async fn a_dead_sweeper_does_not_keep_expired_holds_from_their_owner() {
    let app = without_sweeper(3000).await;
    let ((ada, client), (eve, _)) = (app.organization(), app.organization());
    for organization in [ada, ada, eve] {
        app.hold(organization, 0, 100).await;
    }
    app.reserve(&app.reservation(ada, app.request(), 0, 100)).await.expect(402);
    app.turn.advance(Duration::from_mins(10));
    // All of them together would not be enough, so none is touched.
    app.reserve(&app.reservation(ada, app.request(), 0, 251)).await.expect(402);
    assert_eq!((app.count(HELD).await, app.balance(&client).await), (3, (600, 2400)));
    app.hold(ada, 0, 100).await;
    assert_eq!((app.count(HELD).await, app.balance(&client).await), (3, (600, 2400)), "not just the one that was needed");
    app.hold(ada, 0, 150).await;
    app.reserve(&app.reservation(ada, app.request(), 1, 0)).await.expect(402);
    assert_eq!((app.count(HELD).await, app.balance(&client).await), (3, (0, 3000)));
    let rows = client.get("/v1/usage").await.expect(200).json["data"].clone();
    assert!(rows.as_array().unwrap().iter().all(|row| row["counted_by"] == "abandoned") && rows.as_array().unwrap().len() == 2, "{rows}");
    app.assert_clean().await;
}

/// [B-42]
#[tokio::test]
async fn one_hold_that_cannot_be_ended_does_not_keep_the_sweeper_from_the_others() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    app.sell("gone", true).await;
    let mut body = app.reservation(organization, app.request(), 0, 100);
    body["model"] = json!("gone");
    app.reserve(&body).await.expect(201);
    app.hold(organization, 0, 100).await;
    app.as_owner("create table hidden as select * from rate_cards where model = 'gone'; delete from rate_cards where model = 'gone'").await;
    app.turn.advance(Duration::from_mins(10));
    let stuck = app.metric("billing_reservations_stuck_total").await;
    assert_eq!(sweep(&app.state()).await.unwrap(), 1);
    assert_eq!(app.balance(&client).await, (GRANT - 1200, 1200));
    assert!(app.metric("billing_reservations_stuck_total").await > stuck, "it was not counted");
    app.as_owner("insert into rate_cards overriding system value select * from hidden").await;
    assert_eq!(sweep(&app.state()).await.unwrap(), 1);
    assert_eq!(app.balance(&client).await, (GRANT, 0));
    app.assert_clean().await;
}

/// [B-43]
#[tokio::test]
async fn late_usage_that_the_wallet_cannot_pay_is_recorded_as_debt_and_counted() {
    let app = without_sweeper(1500).await;
    let (organization, client) = app.organization();
    let late = app.hold(organization, 0, 100).await;
    app.turn.advance(Duration::from_mins(10));
    assert_eq!(sweep(&app.state()).await.unwrap(), 1);
    app.hold(organization, 0, 125).await;
    let late_debts = "billing_settlements_in_debt_total{kind=\"late_settlement\"}";
    let counted = app.metric(late_debts).await;
    app.settle(&late, &app.usage(0, 200)).await.expect(200);
    assert_eq!(app.balance(&client).await, (-2400, 1500));
    assert!(app.metric(late_debts).await > counted, "nobody was told");
    let rows = client.get("/v1/usage").await.expect(200).json["data"].clone();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["counted_by"], &rows[0]["price_micros"]), (1, &json!("reported"), &json!(2400)));
    app.assert_clean().await;
}
