//! Reservations, settlements, and what the database itself refuses.

use std::time::Duration;

use super::app::{App, GRANT};
use contracts::usage::{CountedBy, FIELD, GROUP, Outcome, STREAM, UsageEvent};
use futures::future::join_all;
use money::TokenUsage;
use serde_json::json;
use testkit::eventually;

#[tokio::test]
async fn a_wallet_is_made_once_with_its_grant_however_many_meet_it_first() {
    let app = App::start().await;
    let (_, client) = app.organization();
    let balances = join_all((0..16).map(|_| app.balance(&client))).await;
    assert!(balances.iter().all(|balance| *balance == (GRANT, 0)), "{balances:?}");
    assert_eq!(app.count("select count(*) from ledger_transactions where kind = 'signup_grant'").await, 1);
    app.assert_clean().await;
}

/// [B-37] [B-38] [B-39]
#[tokio::test]
async fn of_64_parallel_reservations_exactly_as_many_succeed_as_the_balance_allows() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    // 500,000 micro-units each: ten fit exactly, to the last micro-unit.
    let bodies: Vec<_> = (0..64).map(|_| app.reservation(organization, app.request(), 0, 41_666)).collect();
    let one = app.reserve(&bodies[0]).await.expect(201).json["amount_micros"].as_i64().unwrap();
    let expected = usize::try_from(GRANT / one).unwrap();
    let answers = join_all(bodies[1..].iter().map(|body| app.reserve(body))).await;
    let held = answers.iter().filter(|answer| answer.status == 201).count() + 1;
    assert_eq!(held, expected);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!((refused.status.as_u16(), refused.json["code"].as_str()), (402, Some("insufficient_funds")));
    }
    let (available, on_hold) = app.balance(&client).await;
    assert_eq!((available + on_hold, on_hold), (GRANT, one * i64::try_from(expected).unwrap()));
    app.assert_clean().await;
}

/// [B-39]
#[tokio::test]
async fn the_last_micro_unit_can_be_reserved_and_not_one_more() {
    let app = App::with(|config| config.signup_grant = 1200).await;
    let (organization, _) = app.organization();
    app.reserve(&app.reservation(organization, app.request(), 0, 101)).await.expect(402);
    app.reserve(&app.reservation(organization, app.request(), 0, 100)).await.expect(201);
    app.reserve(&app.reservation(organization, app.request(), 1, 0)).await.expect(402);
}

/// [B-40]
#[tokio::test]
async fn a_settlement_posts_what_was_used_and_returns_the_rest() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let reservation = app.reserve(&app.reservation(organization, app.request(), 1000, 1000)).await.expect(201);
    assert_eq!(reservation.json["amount_micros"], 15_000);
    let settled = app.settle(&reservation.string("id"), &app.usage(100, 10)).await.expect(200);
    assert_eq!((&settled.json["price_micros"], &settled.json["cost_micros"]), (&json!(420), &json!(350)));
    assert_eq!(app.balance(&client).await, (GRANT - 420, 0));
    app.assert_clean().await;
}

/// [B-40]
#[tokio::test]
async fn usage_above_the_hold_is_posted_whole_first_from_the_wallet_then_as_debt() {
    let app = App::with(|config| config.signup_grant = 1500).await;
    let (organization, client) = app.organization();
    let reservation = app.reserve(&app.reservation(organization, app.request(), 0, 100)).await.expect(201);
    app.settle(&reservation.string("id"), &app.usage(0, 200)).await.expect(200);
    assert_eq!(app.balance(&client).await, (1500 - 2400, 0));
    app.reserve(&app.reservation(organization, app.request(), 0, 0)).await.expect(402);
    app.assert_clean().await;
}

/// [B-41]
#[tokio::test]
async fn a_reservation_resolves_once_and_the_same_call_again_gets_the_same_answer() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let body = app.reservation(organization, app.request(), 100, 100);
    let answers = join_all((0..16).map(|_| app.reserve(&body))).await;
    let first = answers[0].clone().expect(201);
    assert!(answers.iter().all(|answer| answer.json == first.json), "one request got several holds");
    let mut other = body.clone();
    other["max_output_tokens"] = json!(101);
    assert_eq!(app.reserve(&other).await.expect(409).json["code"], "reservation_conflict");
    let usage = app.usage(10, 10);
    let settled = join_all((0..16).map(|_| app.settle(answers[0].json["id"].as_str().unwrap(), &usage))).await;
    assert!(settled.iter().all(|answer| answer.status == 200 && answer.json == settled[0].json));
    app.settle(&first.string("id"), &app.usage(11, 10)).await.expect(409);
    let void = format!("/internal/v1/reservations/{}/void", first.string("id"));
    app.private.post(&void, &json!({"reason": "too late"})).await.expect(409);
    assert_eq!(app.balance(&client).await, (GRANT - 150, 0));
    assert_eq!(app.count("select count(*) from usage_events").await, 1);
    app.assert_clean().await;
}

#[tokio::test]
async fn a_void_gives_the_hold_back_and_is_repeatable() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let reservation = app.reserve(&app.reservation(organization, app.request(), 100, 100)).await.expect(201).string("id");
    for _ in 0..3 {
        app.private.post(&format!("/internal/v1/reservations/{reservation}/void"), &json!({"reason": "test"})).await.expect(204);
    }
    assert_eq!(app.balance(&client).await, (GRANT, 0));
    app.settle(&reservation, &app.usage(1, 1)).await.expect(409);
    app.assert_clean().await;
}

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

#[tokio::test]
async fn a_model_without_a_rate_is_refused_and_never_free() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let mut body = app.reservation(organization, app.request(), 1, 1);
    body["model"] = json!("unheard-of");
    assert_eq!(app.reserve(&body).await.expect(404).json["code"], "model_not_priced");
}

fn event(app: &App, organization: identity::OrganizationId, body: &serde_json::Value, reservation: &str) -> UsageEvent {
    UsageEvent {
        request_id: body["request_id"].as_str().unwrap().parse().unwrap(),
        reservation_id: reservation.parse().unwrap(),
        organization_id: organization,
        api_key_id: None,
        user_id: None,
        model: "sim-large".into(),
        provider: "simulator".into(),
        usage: TokenUsage::text(10, 10),
        counted_by: CountedBy::Reported,
        outcome: Outcome::Completed,
        started_at: app.clock.now(),
        ended_at: app.clock.now(),
    }
}

/// [B-55] [B-56]
#[tokio::test]
async fn an_event_that_comes_many_times_is_settled_once_and_a_broken_one_does_not_hold_up_the_others() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let mut json_events = vec!["not json".to_owned()];
    for _ in 0..20 {
        let body = app.reservation(organization, app.request(), 100, 100);
        let reservation = app.reserve(&body).await.expect(201).string("id");
        json_events.push(serde_json::to_string(&event(&app, organization, &body, &reservation)).unwrap());
    }
    for _ in 0..3 {
        for event in &json_events {
            chassis::streams::publish(&app.redis.redis, STREAM, &[(FIELD, event)], None).await.unwrap();
        }
    }
    eventually("the settlements", || async { (app.balance(&client).await == (GRANT - 20 * 150, 0)).then_some(()) }).await;
    assert_eq!(app.count("select count(*) from usage_events").await, 20);
    app.assert_clean().await;
}

/// [B-58]
#[tokio::test]
async fn a_consumer_that_dies_between_commit_and_acknowledgement_settles_nothing_twice() {
    let app = App::with(|config| config.signup_grant = GRANT).await;
    let (organization, client) = app.organization();
    let body = app.reservation(organization, app.request(), 100, 100);
    let reservation = app.reserve(&body).await.expect(201).string("id");
    let text = serde_json::to_string(&event(&app, organization, &body, &reservation)).unwrap();
    // What a dead consumer did: took the message and committed its effect, and never acknowledged.
    let message = chassis::streams::Message { id: "1-0".into(), fields: [(FIELD.to_owned(), text.clone())].into() };
    let handler = billing_service::usage::UsageEvents(app.state());
    chassis::streams::Handler::handle(&handler, std::slice::from_ref(&message)).await.unwrap();
    chassis::streams::publish(&app.redis.redis, STREAM, &[(FIELD, &text)], None).await.unwrap();
    eventually("the acknowledgement", || async {
        let length: i64 = redis::cmd("XLEN").arg(STREAM).query_async(&mut app.redis.redis.connection()).await.ok()?;
        let groups: i64 = redis::cmd("XPENDING")
            .arg(STREAM)
            .arg(GROUP)
            .query_async::<redis::streams::StreamPendingReply>(&mut app.redis.redis.connection())
            .await
            .ok()?
            .count()
            .try_into()
            .ok()?;
        (length == 0 && groups == 0).then_some(())
    })
    .await;
    assert_eq!(app.balance(&client).await, (GRANT - 150, 0));
    assert_eq!(app.count("select count(*) from usage_events").await, 1);
    app.assert_clean().await;
}

#[tokio::test]
async fn redis_killed_and_back_loses_no_settlement() {
    let mut app = App::start().await;
    let (organization, client) = app.organization();
    let body = app.reservation(organization, app.request(), 100, 100);
    let reservation = app.reserve(&body).await.expect(201).string("id");
    let text = serde_json::to_string(&event(&app, organization, &body, &reservation)).unwrap();
    app.redis.kill();
    app.redis.restart().await.unwrap();
    let redis = app.redis.redis.clone();
    eventually("the append", || async { chassis::streams::publish(&redis, STREAM, &[(FIELD, &text)], None).await.ok() }).await;
    eventually("the settlement", || async { (app.balance(&client).await == (GRANT - 150, 0)).then_some(()) }).await;
    app.assert_clean().await;
}

/// [B-34]
#[tokio::test]
async fn the_database_refuses_transactions_that_are_not_balanced_or_have_one_entry() {
    let app = App::start().await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    for entries in ["(5), (-4)", "(5)"] {
        let mut transaction = app.database.pool.begin().await.unwrap();
        sqlx::query(
            "insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'signup_grant', 'x', now())",
        )
        .execute(&mut *transaction)
        .await
        .unwrap();
        let insert = format!(
            "insert into ledger_entries (transaction_id, account_id, amount_micros) select t.id, a.id, v.amount from ledger_transactions t, (select id from accounts where kind = 'wallet' limit 1) a, (values {entries}) v(amount) where t.external_key = 'x'"
        );
        sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&mut *transaction).await.unwrap();
        let refused = transaction.commit().await.unwrap_err();
        assert_eq!(chassis::postgres::constraint(&refused), Some("ledger_transactions_balanced"), "{entries}");
    }
    app.assert_clean().await;
}

/// [B-35]
#[tokio::test]
async fn the_running_role_cannot_change_or_delete_what_was_posted_nor_alter_the_schema() {
    let app = App::start().await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    for statement in [
        "update ledger_entries set amount_micros = 1",
        "delete from ledger_entries",
        "delete from ledger_transactions",
        "update ledger_transactions set kind = 'x'",
        "update accounts set balance_micros = 1",
        "delete from usage_events",
        "update usage_events set organization_id = gen_random_uuid()",
        "update rate_cards set price_input = 0",
        "drop table accounts",
        "alter table accounts add column x text",
        "truncate ledger_entries",
    ] {
        let refused = sqlx::query(statement).execute(&app.database.pool).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
    }
    let late = "insert into ledger_entries (transaction_id, account_id, amount_micros) select t.id, a.id, 5 from ledger_transactions t, accounts a limit 1";
    let refused = sqlx::query(late).execute(&app.database.pool).await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("ledger_transactions_closed"), "an entry joined a closed transaction");
}

/// [B-36]
#[tokio::test]
async fn verify_names_the_account_whose_balance_is_not_its_sum() {
    let app = App::start().await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    app.assert_clean().await;
    sqlx::query("update accounts set balance_micros = balance_micros + 1 where kind = 'wallet'")
        .execute(&app.database.owner)
        .await
        .unwrap();
    let differences = billing_service::ledger::verify::differences(&app.database.pool).await.unwrap();
    assert!(differences.len() == 1 && differences[0].contains("entries sum to 5000000"), "{differences:?}");
}

/// [B-31]
#[tokio::test]
async fn rate_cards_of_a_model_cannot_overlap_and_an_import_takes_effect_at_its_instant() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let overlapping = "insert into rate_cards select (jsonb_populate_record(r, jsonb_build_object('id', 999))).* from rate_cards r where model = 'sim-large'";
    assert!(sqlx::query(overlapping).execute(&app.database.owner).await.is_err());
    let from = app.clock.now() + chrono::TimeDelta::hours(1);
    let list = r#"{"sim-large": {"input_cost_per_token": 1e-6, "output_cost_per_token": "0.000002"}}"#;
    billing_service::rates::import(&app.database.pool, list, 0, from, true).await.unwrap();
    assert_eq!(app.count("select count(*) from rate_cards where model = 'sim-large'").await, 1, "a dry run wrote");
    billing_service::rates::import(&app.database.pool, list, 0, from, false).await.unwrap();
    let amount = |answer: testkit::http::Answer| answer.expect(201).json["amount_micros"].as_i64().unwrap();
    assert_eq!(amount(app.reserve(&app.reservation(organization, app.request(), 100, 0)).await), 300);
    app.turn.advance(Duration::from_hours(1));
    assert_eq!(amount(app.reserve(&app.reservation(organization, app.request(), 100, 0)).await), 100);
}
