//! The check of the ledger that nobody asks for.

use std::time::Duration;

use super::app::App;
use super::wallet::run;
use billing_service::ledger::checks::step;
use billing_service::operations::status;

const DAY: Duration = Duration::from_hours(24);
const DRIFT: &str = "update accounts set balance_micros = balance_micros + 1 where kind = 'promotion'";
const MEND: &str = "update accounts set balance_micros = balance_micros - 1 where kind = 'promotion'";
const CHECKS: &str = "select count(*) from ledger_checks";

/// What the status says of the last check: how much it found, and whether somebody has to look.
async fn told(app: &App) -> (i64, bool) {
    let status = status(&app.state()).await.unwrap();
    let line = status.lines.iter().find(|line| line.metric == "billing_ledger_differences").unwrap();
    (line.value, line.beyond)
}

/// An organization with its first credit.
async fn with_a_wallet() -> App {
    let app = App::start().await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    app
}

/// [B-36]
#[tokio::test]
async fn a_balance_that_is_not_its_sum_is_found_by_the_next_check_and_told_by_every_replica_until_one_finds_none() {
    let app = with_a_wallet().await;
    assert_eq!(step(&app.state(), DAY).await.unwrap().unwrap().differences, 0);
    assert_eq!(told(&app).await, (0, false));
    app.as_owner(DRIFT).await;
    app.turn.advance(DAY);
    assert_eq!(step(&app.state(), DAY).await.unwrap().unwrap().differences, 1);
    // Another state: nothing of it is in the memory of who checked.
    assert_eq!(told(&app).await, (1, true));
    let told_to_read = run(&app, &["status"]).await.unwrap_err().to_string();
    assert!(told_to_read.contains("docs/operations/RUNBOOK.md#billing_ledger_differences"), "{told_to_read}");
    app.as_owner(MEND).await;
    assert_eq!(told(&app).await, (1, true), "nobody has looked yet");
    run(&app, &["ledger", "verify"]).await.unwrap();
    assert_eq!(told(&app).await, (0, false));
    assert_eq!(app.count(CHECKS).await, 3);
}

/// [B-36]
#[tokio::test]
async fn of_two_replicas_one_checks_the_ledger_once_in_a_period() {
    let app = with_a_wallet().await;
    let replicas = [app.state(), app.state()];
    let both = async || {
        let (one, other) = tokio::join!(step(&replicas[0], DAY), step(&replicas[1], DAY));
        [one.unwrap(), other.unwrap()].iter().flatten().count()
    };
    assert_eq!((both().await, both().await), (1, 0));
    app.turn.advance(DAY.checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(both().await, 0, "a millisecond before its time");
    app.turn.advance(Duration::from_millis(1));
    assert_eq!((both().await, app.count(CHECKS).await), (1, 2));
}
