//! The catalogue in the database: planned, applied, versioned.

use billing_service::admin::{SCOPE_READ, SCOPE_WRITE};
use billing_service::audit::Decision;
use billing_service::catalog::apply::{ApplyError, apply, plan};
use billing_service::catalog::{Catalog, Code, Interval, parse, stored};
use billing_service::subscriptions::command::Command;
use billing_service::subscriptions::moving;
use billing_service::subscriptions::terms::Terms;
use serde_json::{Value, json};
use testkit::repository;

use super::app::App;
use super::selling::sell;
use super::subscriptions::{does, paid, subscribe};

pub fn example() -> String {
    repository::read("docs/examples/catalog.yaml")
}

fn decision(app: &App) -> Decision {
    Decision::new(&app.state(), "ada", "a test", None)
}

#[test]
fn the_example_in_the_documents_is_a_catalogue() {
    let catalog = parse(&example()).unwrap();
    assert_eq!((catalog.plans.len(), catalog.credit_packs.len(), catalog.coupons.len()), (3, 2, 2));
    let pro = &catalog.plans[&"pro".parse().unwrap()];
    assert_eq!(pro.prices.get("KWD".parse().unwrap(), Interval::Month), Some(6_150_000));
}

#[tokio::test]
async fn what_was_applied_is_sold_and_applying_it_again_changes_nothing() {
    let app = App::start().await;
    let (_, client) = app.organization();
    assert_eq!(client.get("/v1/plans").await.expect(200).json["plans"].as_array().unwrap().len(), 0);
    sell(&app, &example()).await;
    let plans = client.get("/v1/plans").await.expect(200).json;
    let codes: Vec<&str> = plans["plans"].as_array().unwrap().iter().map(|plan| plan["code"].as_str().unwrap()).collect();
    assert_eq!((codes, plans["credit_packs"].as_array().unwrap().len()), (vec!["free", "pro", "team"], 2));
    let ends = |of: &Value| of["included_credit_expiry"].clone();
    let (free, pro, team) = (ends(&plans["plans"][0]), ends(&plans["plans"][1]), ends(&plans["plans"][2]));
    assert_eq!((free, pro, team), (Value::Null, json!({"expires": "period_end"}), json!({"expires": "days", "days": 90})));
    assert_eq!(plans["credit_packs"][0]["credit_expiry"]["expires"], "never");
    let rows = "select (select count(*) from catalog_versions) * 1000000 + (select count(*) from plan_versions) * 10000 + (select count(*) from prices) * 100
                + (select count(*) from intents) + (select count(*) from audit_log)";
    let before = app.count(rows).await;
    let planned = plan(&app.state(), &parse(&example()).unwrap()).await.unwrap();
    assert!(planned.diff.is_empty());
    sell(&app, &example()).await;
    assert_eq!(app.count(rows).await, before);
    app.public.get("/v1/plans").await.expect(401);
}

/// Who subscribed stays on the version that was agreed; who comes later gets the new one; an operator is told before.
#[tokio::test]
async fn a_changed_plan_is_a_new_version_and_who_is_there_stays_on_theirs() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (ada, client) = app.organization();
    let subscription = subscribe(&app, ada, "pro", "USD").await.unwrap();
    let dearer = example().replace("\"20.00\", year: \"200.00\"", "\"25.00\", year: \"250.00\"");
    let planned = plan(&app.state(), &parse(&dearer).unwrap()).await.unwrap();
    assert!(planned.text.contains("~ plan pro: a new version"), "{}", planned.text);
    assert!(planned.text.contains("prices.USD.month: \"20.00\" -> \"25.00\""), "{}", planned.text);
    assert!(planned.text.contains("1 subscriptions stay on version 1"), "{}", planned.text);
    sell(&app, &dearer).await;
    assert_eq!(client.get("/v1/subscription").await.expect(200).json["data"][0]["plan_version"], 1);
    let (eve, eve_client) = app.organization();
    subscribe(&app, eve, "pro", "USD").await.unwrap();
    assert_eq!(eve_client.get("/v1/subscription").await.expect(200).json["data"][0]["plan_version"], 2);
    app.turn.advance(std::time::Duration::from_hours(15 * 24));
    testkit::eventually::eventually("the trial has ended", || async {
        (app.count("select count(*) from subscription_charges").await == 2).then_some(())
    })
    .await;
    let charged = app.count("select total_micros from subscription_charges order by total_micros limit 1").await;
    assert_eq!(charged, 20_000_000, "at the price that was agreed");
    paid(&app, ada, subscription.id).await;
}

#[tokio::test]
async fn who_is_moved_gets_the_new_version_when_the_period_ends_and_who_wants_something_else_gets_that() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let ((ada, client), (eve, eve_client), (bob, bob_client)) = (app.organization(), app.organization(), app.organization());
    for organization in [ada, eve, bob] {
        subscribe(&app, organization, "pro", "USD").await.unwrap();
    }
    let ids = |client: &testkit::http::TestClient| {
        let client = client.clone();
        async move { client.get("/v1/subscription").await.expect(200).json["data"][0].clone() }
    };
    let canceled = ids(&eve_client).await["id"].as_str().unwrap().parse().unwrap();
    does(&app, eve, canceled, &Command::CancelAtPeriodEnd).await.unwrap();
    sell(&app, &example().replace("\"20.00\", year: \"200.00\"", "\"25.00\", year: \"250.00\"")).await;
    let to_team = stored_terms(&app, "team").await;
    let downgraded = ids(&bob_client).await["id"].as_str().unwrap().parse().unwrap();
    does(&app, bob, downgraded, &Command::Downgrade { terms: Box::new(to_team), seats: 1 }).await.unwrap();
    let (state, plan) = (app.state(), "pro".parse().unwrap());
    let again = async || moving::decide(&state, decision(&app), &plan).await.unwrap().carry_out(&state).await.unwrap();
    let moved = again().await;
    assert_eq!((moved.moving, moved.staying), (1, 2));
    let changes = app.count("select count(*) from subscription_changes").await;
    assert_eq!(again().await, moved);
    assert_eq!(app.count("select count(*) from subscription_changes").await, changes, "asked again, nothing more happens");
    let shown = ids(&client).await;
    assert_eq!((shown["plan_version"].as_i64(), shown["pending"]["plan_version"].as_i64()), (Some(1), Some(2)));
    assert_eq!(ids(&bob_client).await["pending"]["plan"], "team");
}

/// [B-78] By terminal and by HTTP, and broken off it goes on under the same key.
#[tokio::test]
async fn who_is_moved_is_moved_with_a_reason_and_a_row_in_the_same_transaction() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let ((ada, _), (eve, _)) = (app.organization(), app.organization());
    for organization in [ada, eve] {
        subscribe(&app, organization, "pro", "USD").await.unwrap();
    }
    sell(&app, &example().replace("\"20.00\", year: \"200.00\"", "\"25.00\", year: \"250.00\"")).await;
    let console = app.service(&format!("{SCOPE_READ} {SCOPE_WRITE}"));
    let path = "/v1/admin/catalog/move";
    let by = |reason: &str| json!({"by": {"actor": "grace", "reason": reason}, "plan": "pro"});
    let counts = async || {
        let rows = app.count("select count(*) from audit_log where action = 'catalog.move'").await;
        (rows, app.count("select count(*) from subscriptions where state->'pending'->'terms'->>'plan' = 'pro'").await)
    };
    let terminal = async |reason: &str| {
        let arguments = ["catalog", "move", "pro", "--actor", "grace", "--reason", reason, "--idempotency-key", "m"];
        super::wallet::run(&app, &arguments).await
    };
    for (body, field) in [(by(" "), "reason"), (json!({"by": {"actor": "grace"}, "plan": "pro"}), "reason")] {
        let refused = console.post(path, &body).await.expect(422);
        assert!(refused.text.contains(field), "{}", refused.text);
    }
    assert_eq!(terminal(" ").await.unwrap_err().to_string(), "refused: reason must say why");
    let unsaid = super::wallet::run(&app, &["catalog", "move", "pro", "--actor", "grace"]).await.unwrap_err();
    assert!(unsaid.to_string().contains("--reason"), "{unsaid}");
    console.post(path, &json!({"by": {"actor": "grace", "reason": "r"}, "plan": "none"})).await.expect(404);
    assert_eq!(counts().await, (0, 0));
    // The row of the second cannot be written: it is not moved either.
    app.as_owner("create unique index broken on audit_log (action) where organization_id is not null").await;
    terminal("the old price ends").await.unwrap_err();
    assert_eq!(counts().await, (2, 1), "of the decision, and of who was moved");
    app.as_owner("drop index broken").await;
    let keyed = console.header("idempotency-key", "m");
    let moved = keyed.post(path, &by("the old price ends")).await.expect(200).json;
    assert_eq!((moved, counts().await), (json!({"moving": 2, "staying": 0}), (3, 2)));
    terminal("again").await.unwrap();
    assert_eq!(counts().await, (3, 2), "repeated, nothing more is done");
    let log = console.get("/v1/admin/audit?action=catalog.move").await.expect(200).json;
    let row = &log["data"][0];
    assert!(row["organization_id"] == json!(ada.uuid()) || row["organization_id"] == json!(eve.uuid()), "{row}");
    assert_eq!((&row["actor"], &row["reason"]), (&json!("grace via chat-service"), &json!("the old price ends")));
    assert_eq!((&row["request"]["version"], &row["before"]["pending"]), (&json!(2), &json!(null)));
    sell(&app, &example().replace("\"20.00\", year: \"200.00\"", "\"26.00\", year: \"260.00\"")).await;
    keyed.post(path, &by("the old price ends")).await.expect(422);
}

async fn stored_terms(app: &App, plan: &str) -> Terms {
    let mut connection = app.database.pool.acquire().await.unwrap();
    let sold = stored::sold(&mut connection, &plan.parse().unwrap()).await.unwrap();
    Terms::of(&sold, "USD".parse().unwrap(), Interval::Month).unwrap()
}

#[tokio::test]
async fn a_catalogue_that_changed_since_the_plan_is_not_applied() {
    let app = App::start().await;
    let (state, wanted) = (app.state(), parse(&example()).unwrap());
    let planned = plan(&state, &wanted).await.unwrap();
    sell(&app, &example()).await;
    let refused = apply(&state, &Catalog::default(), &planned.stored, &decision(&app)).await;
    assert!(matches!(refused, Err(ApplyError::Changed { .. })), "{refused:?}");
    assert_eq!(app.count("select count(*) from plan_versions where retired_at is null").await, 3);
}

#[tokio::test]
async fn of_many_who_apply_at_once_one_does() {
    let app = App::start().await;
    let (state, wanted) = (app.state(), parse(&example()).unwrap());
    let stored = plan(&state, &wanted).await.unwrap().stored;
    let decisions: Vec<Decision> = (0..64).map(|_| decision(&app)).collect();
    let applied = futures::future::join_all(decisions.iter().map(|decision| apply(&state, &wanted, &stored, decision))).await;
    assert_eq!(applied.iter().filter(|applied| applied.is_ok()).count(), 1);
    assert_eq!(app.count("select count(*) from catalog_versions").await, 1);
}

#[tokio::test]
async fn a_plan_never_moves_to_another_group_not_even_when_it_comes_back() {
    let app = App::start().await;
    sell(&app, &example()).await;
    let (state, moved) = (app.state(), parse(&example().replace("group: main", "group: other")).unwrap());
    let stored = plan(&state, &moved).await.unwrap().stored;
    assert!(matches!(apply(&state, &moved, &stored, &decision(&app)).await, Err(ApplyError::Regrouped(_))));
    sell(&app, "format: 1").await;
    let stored = plan(&state, &moved).await.unwrap().stored;
    assert!(apply(&state, &moved, &stored, &decision(&app)).await.is_err());
    sell(&app, &example()).await;
    assert_eq!(app.count("select max(version)::bigint from plan_versions").await, 2, "it comes back as a new version");
}

/// [B-78]
#[tokio::test]
async fn the_service_can_neither_edit_a_version_nor_its_history() {
    let app = App::start().await;
    sell(&app, &example()).await;
    for statement in [
        "update plan_versions set definition = '{}'",
        "delete from plan_versions",
        "update prices set amount_micros = 0",
        "update catalog_audit set actor = 'nobody'",
        "delete from catalog_audit",
        "update intents set payload = '{}'",
    ] {
        assert!(sqlx::query(statement).execute(&app.database.pool).await.is_err(), "{statement}");
    }
}

/// [B-67]
#[tokio::test]
async fn each_change_of_the_catalogue_is_a_wish_towards_stripe_in_the_same_transaction() {
    let app = App::start().await;
    sell(&app, &example()).await;
    assert_eq!(app.count("select count(*) from intents where sent_at is null and kind like 'catalog.%'").await, 7);
    sell(&app, "format: 1").await;
    assert_eq!(app.count("select count(*) from intents where payload->>'definition' is null").await, 7, "no longer sold");
}

#[test]
fn commands_can_be_stored_and_read() {
    let code: Code = "pro".parse().unwrap();
    assert_eq!(serde_json::to_string(&code).unwrap(), "\"pro\"");
    let text = serde_json::to_string(&Command::ChangeSeats { seats: 3 }).unwrap();
    assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), Command::ChangeSeats { seats: 3 });
}
