//! Subscriptions in the database: one in a group, each effect once, and what the API shows.

use std::time::Duration;

use billing_service::catalog::Interval;
use billing_service::error::Error;
use billing_service::subscriptions::command::Command;
use billing_service::subscriptions::store::{Stored, Wanted};
use billing_service::subscriptions::{SubscriptionId, due, store};
use chassis::in_transaction;
use identity::{OrganizationId, Scopes};
use serde_json::{Value, json};
use testkit::eventually::eventually;

use super::app::App;
use super::catalog::example;
use super::selling::sell;

pub async fn subscribe(app: &App, organization: OrganizationId, plan: &str, currency: &str) -> Result<Stored, Error> {
    let wanted =
        Wanted { plan: plan.parse().unwrap(), currency: currency.parse().unwrap(), interval: Interval::Month, seats: 1, coupon: None };
    let state = app.state();
    let begun = in_transaction!(state.pool, |transaction| { store::start(&state, transaction, organization, &wanted, "test").await })?;
    // The card of a trial is there.
    if begun.subscription.waits_for_card() { does(app, organization, begun.id, &Command::BeginTrial).await } else { Ok(begun) }
}

pub async fn does(app: &App, organization: OrganizationId, id: SubscriptionId, command: &Command) -> Result<Stored, Error> {
    let state = app.state();
    in_transaction!(state.pool, |transaction| { store::apply(&state, transaction, organization, id, command, "test").await })
}

/// All open charges of a subscription are paid.
pub async fn paid(app: &App, organization: OrganizationId, id: SubscriptionId) {
    let subscription = store::find(&mut app.database.pool.acquire().await.unwrap(), organization, id).await.unwrap();
    for charge in subscription.open {
        let paid = Command::PaymentSucceeded { period_start: charge.period_start, reason: charge.reason };
        does(app, organization, id, &paid).await.unwrap();
    }
}

fn code(result: &Result<Stored, Error>) -> &str {
    match result {
        Err(Error::Refused(problem)) => problem.code(),
        _ => "",
    }
}

/// [B-69] [B1] [B23]
#[tokio::test]
async fn of_64_who_subscribe_at_once_one_does() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, _) = app.organization();
    let plans = ["pro", "team"];
    let tries = futures::future::join_all((0..64).map(|number| subscribe(&app, ada, plans[number % 2], "USD"))).await;
    assert_eq!(tries.iter().filter(|tried| tried.is_ok()).count(), 1);
    assert!(tries.iter().filter(|tried| tried.is_err()).all(|tried| code(tried) == "subscription_exists"));
    assert_eq!(app.count("select count(*) from subscriptions").await, 1);
    assert_eq!(app.count("select count(*) from subscription_changes where status_before is null").await, 1);
}

/// [B-77] [B-70]
#[tokio::test]
async fn of_64_who_tell_of_a_payment_at_once_one_gives_the_credit() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, client) = app.organization();
    let subscription = subscribe(&app, ada, "team", "USD").await.unwrap();
    assert_eq!(client.get("/v1/subscription").await.expect(200).json["data"][0]["status"], "incomplete");
    let paid = Command::PaymentSucceeded { period_start: subscription.subscription.period.start, reason: "start".into() };
    let told = futures::future::join_all((0..64).map(|_| does(&app, ada, subscription.id, &paid))).await;
    assert!(told.iter().all(Result::is_ok), "told again is told");
    assert_eq!(app.count("select count(*) from subscription_grants").await, 1);
    assert_eq!(app.count("select amount_micros from subscription_grants").await, 60_000_000);
    let shown = client.get("/v1/subscription").await.expect(200).json;
    assert_eq!((&shown["data"][0]["status"], &shown["data"][0]["access"]), (&json!("active"), &json!("full")));
}

/// [B-60] [B-77] [B7]
#[tokio::test]
async fn the_calendar_renews_once_however_many_look() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, _) = app.organization();
    let subscription = subscribe(&app, ada, "team", "USD").await.unwrap();
    paid(&app, ada, subscription.id).await;
    app.turn.advance(Duration::from_hours(32 * 24));
    let state = app.state();
    futures::future::try_join_all((0..64).map(|_| due::step(&state))).await.unwrap();
    eventually("the period was renewed", || async { (app.count("select count(*) from subscription_charges").await == 2).then_some(()) })
        .await;
    let kinds = app.count("select count(*) from intents where kind = 'subscription.charge'").await;
    assert_eq!(
        (kinds, app.count("select count(distinct period_start) from subscription_charges").await),
        (1, 2),
        "the first is paid on a page"
    );
}

/// [B-77] A row that nobody can read, or credit that no wallet can hold, is set aside; the others have their turn.
#[tokio::test]
async fn what_cannot_be_worked_on_keeps_nobody_else_from_being_renewed_and_given_credit() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let ((ada, _), (eve, _)) = (app.organization(), app.organization());
    let broken = subscribe(&app, ada, "team", "USD").await.unwrap();
    paid(&app, ada, broken.id).await;
    app.as_owner(
        "update subscriptions set state = '{}';
         insert into subscription_grants (id, subscription_id, organization_id, period_start, reason, currency, amount_micros, created_at)
         select gen_random_uuid(), id, organization_id, created_at, 'too much', 'USD', 9223372036854775807, '2000-01-01' from subscriptions",
    )
    .await;
    let sound = subscribe(&app, eve, "team", "USD").await.unwrap();
    paid(&app, eve, sound.id).await;
    eventually("the credit of the others is posted", || async {
        (app.count("select count(*) from subscription_grants where posted_at is null").await == 1).then_some(())
    })
    .await;
    app.turn.advance(Duration::from_hours(32 * 24));
    eventually("the other is renewed", || async { (app.count("select count(*) from subscription_charges").await == 3).then_some(()) })
        .await;
    let waits = "select count(*) from subscriptions s join subscription_grants g on g.subscription_id = s.id and g.next_at is not null
                 where s.state = '{}' and s.next_action_at > s.updated_at + interval '32 days'";
    eventually("the row is set aside", || async { (app.count(waits).await == 1).then_some(()) }).await;
    app.assert_clean().await;
}

/// [B-71]
#[tokio::test]
async fn who_does_not_pay_in_23_hours_may_try_again_without_a_second_trial() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, client) = app.organization();
    let trial = subscribe(&app, ada, "pro", "USD").await.unwrap();
    assert_eq!(trial.subscription.status.as_str(), "trialing");
    does(&app, ada, trial.id, &Command::CancelNow).await.unwrap();
    let again = subscribe(&app, ada, "pro", "USD").await.unwrap();
    assert_eq!(again.subscription.status.as_str(), "incomplete");
    app.turn.advance(Duration::from_hours(23));
    eventually("it has expired", || async { (client.get("/v1/subscription").await.json["data"] == json!([])).then_some(()) }).await;
}

/// [B-18]
#[tokio::test]
async fn the_database_itself_keeps_what_is_over_over() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, _) = app.organization();
    let subscription = subscribe(&app, ada, "pro", "USD").await.unwrap();
    does(&app, ada, subscription.id, &Command::CancelNow).await.unwrap();
    let raised = sqlx::query("update subscriptions set status = 'active'").execute(&app.database.pool).await;
    assert_eq!(chassis::postgres::constraint(&raised.unwrap_err()), Some("subscriptions_over_stays_over"));
    for statement in [
        "update subscription_changes set actor = 'x'",
        "delete from subscription_charges",
        "update subscription_grants set amount_micros = 1",
    ] {
        assert!(sqlx::query(statement).execute(&app.database.pool).await.is_err(), "{statement}");
    }
}

#[tokio::test]
async fn the_currency_of_the_first_purchase_is_the_customers() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, client) = app.organization();
    let first = subscribe(&app, ada, "pro", "JPY").await.unwrap();
    does(&app, ada, first.id, &Command::CancelNow).await.unwrap();
    assert_eq!(code(&subscribe(&app, ada, "pro", "USD").await), "other_currency");
    let plans = client.get("/v1/plans").await.expect(200).json;
    let shown: Vec<&str> =
        plans["plans"][1]["prices"].as_array().unwrap().iter().map(|price| price["currency"].as_str().unwrap()).collect();
    assert_eq!(shown, ["JPY", "JPY"]);
}

/// [B-79]
#[tokio::test]
async fn a_subscription_of_another_organization_does_not_exist() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let ((ada, _), (eve, eve_client)) = (app.organization(), app.organization());
    let subscription = subscribe(&app, ada, "team", "USD").await.unwrap();
    assert!(matches!(does(&app, eve, subscription.id, &Command::CancelNow).await, Err(Error::NotFound)));
    assert_eq!(eve_client.get("/v1/subscription").await.expect(200).json["data"], json!([]));
    let body = json!({"change": "change_seats", "subscription_id": subscription.id, "seats": 9});
    eve_client.post("/v1/subscription/preview", &body).await.expect(404);
    app.public.get("/v1/subscription").await.expect(401);
    app.public.post("/v1/subscription/preview", &body).await.expect(401);
}

/// [B-72]
#[tokio::test]
async fn a_preview_says_what_a_change_costs_now_and_later_and_changes_nothing() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, client) = app.organization();
    let start = json!({"change": "start", "plan": "team", "currency": "KWD", "interval": "month", "seats": 7, "coupon": "launch"});
    let preview = client.post("/v1/subscription/preview", &start).await.expect(200).json;
    // 30.750 and two seats of 4.600, a fifth off.
    assert_eq!((&preview["now"]["total_micros"], &preview["next"]["total_micros"]), (&json!(31_960_000), &json!(31_960_000)));
    assert_eq!(app.count("select count(*) from subscriptions").await, 0);
    let subscription = subscribe(&app, ada, "team", "USD").await.unwrap();
    paid(&app, ada, subscription.id).await;
    let down = json!({"change": "change_plan", "subscription_id": subscription.id, "plan": "pro", "interval": "month", "seats": 1});
    let preview = client.post("/v1/subscription/preview", &down).await.expect(200).json;
    assert_eq!(
        (&preview["effective"], &preview["now"], &preview["next"]["total_micros"]),
        (&json!("period_end"), &json!(null), &json!(20_000_000))
    );
    let year = json!({"change": "change_plan", "subscription_id": subscription.id, "plan": "team", "interval": "year", "seats": 1});
    let preview = client.post("/v1/subscription/preview", &year).await.expect(200).json;
    assert_eq!((&preview["effective"], &preview["now"]["total_micros"]), (&json!("now"), &json!(900_000_000)));
    let unknown = json!({"change": "start", "plan": "none", "currency": "USD", "interval": "month", "seats": 1, "coupon": null});
    client.post("/v1/subscription/preview", &unknown).await.expect(404);
    let malformed = json!({"change": "start", "plan": "Pro!", "currency": "USD", "interval": "month", "seats": 1, "coupon": null});
    client.post("/v1/subscription/preview", &malformed).await.expect(422);
}

/// [B-72] A hundred dollars a month, a fifth less with the coupon.
#[tokio::test]
async fn a_preview_of_a_coupon_an_end_or_a_rest_says_what_the_change_then_does() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, client) = app.organization_with(Scopes::known(["billing:read", "billing:write"]));
    let id = subscribe(&app, ada, "team", "USD").await.unwrap().id;
    paid(&app, ada, id).await;
    let preview = async |change: &str| client.post("/v1/subscription/preview", &json!({"change": change, "subscription_id": id})).await;
    let shown = async |change: &str| {
        let shown = preview(change).await.expect(200).json;
        let total = |part: &str| shown[part]["total_micros"].as_i64();
        (shown["effective"].as_str().unwrap().to_owned(), total("now"), total("next"))
    };
    let change = async |change: Value| {
        let body = json!({"subscription_id": id, "change": change});
        client.post("/v1/subscription/changes", &body).await.expect(200).json
    };
    let coupon = async |code: &str| {
        let body = json!({"change": "apply_coupon", "subscription_id": id, "coupon": code});
        client.post("/v1/subscription/preview", &body).await
    };
    let (at_once, later, fifth_off) = ("now".to_owned(), "period_end".to_owned(), Some(80_000_000));

    let offered = coupon("launch").await.expect(200).json;
    assert_eq!(
        (&offered["effective"], &offered["now"], &offered["next"]["total_micros"]),
        (&json!("now"), &json!(null), &json!(80_000_000))
    );
    coupon("none").await.expect(404);
    assert_eq!(coupon("No!").await.expect(422).json["errors"][0]["field"], "coupon");
    change(json!({"kind": "coupon", "coupon": "launch"})).await;
    assert_eq!(coupon("launch").await.expect(409).json["code"], "coupon_redeemed");

    assert_eq!(shown("cancel").await, (later, None, None));
    change(json!({"kind": "cancel"})).await;
    preview("pause").await.expect(409);
    assert_eq!(shown("uncancel").await, (at_once.clone(), None, fifth_off));
    change(json!({"kind": "uncancel"})).await;

    assert_eq!(shown("pause").await, (at_once.clone(), None, None));
    change(json!({"kind": "pause"})).await;
    assert_eq!(shown("resume").await, (at_once.clone(), None, fifth_off), "the period is paid");
    app.turn.advance(Duration::from_hours(40 * 24));
    assert_eq!(shown("resume").await, (at_once, fifth_off, fifth_off), "a new period begins");
    assert_eq!(change(json!({"kind": "resume"})).await["status"], "active");
    let charged = "select sum(total_micros)::bigint from subscription_charges where reason = 'renewal'";
    assert_eq!(app.count(charged).await, 80_000_000);
}
