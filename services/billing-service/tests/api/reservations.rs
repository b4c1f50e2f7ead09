//! Holds and their settlements over the private API.

use std::time::Duration;

use super::app::{App, GRANT};
use super::gateway::RESERVED;
use super::leases::{end_of_all, without_sweeper};
use futures::future::join_all;
use serde_json::json;
use testkit::eventually;

/// [B23]
#[tokio::test]
async fn a_wallet_is_made_once_with_its_grant_however_many_meet_it_first() {
    let app = App::start().await;
    let (_, client) = app.organization();
    let balances = join_all((0..64).map(|_| app.balance(&client))).await;
    assert!(balances.iter().all(|balance| *balance == (GRANT, 0)), "{balances:?}");
    assert_eq!(app.count("select count(*) from ledger_transactions where kind = 'signup_grant'").await, 1);
    app.assert_clean().await;
}

/// [B-37] [B-38] [B-39] [B17]
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

/// [B-39] [B18]
#[tokio::test]
async fn the_last_micro_unit_can_be_reserved_and_not_one_more() {
    let app = App::with(|config| config.signup_grant = 1200).await;
    let (organization, _) = app.organization();
    app.reserve(&app.reservation(organization, app.request(), 0, 101)).await.expect(402);
    app.reserve(&app.reservation(organization, app.request(), 0, 100)).await.expect(201);
    app.reserve(&app.reservation(organization, app.request(), 1, 0)).await.expect(402);
}

/// [B-38] [B-39] A lease that a gateway fills takes more than its requests need at once. What would not reach with all of that closes no lease.
#[tokio::test]
async fn what_lies_unused_in_a_lease_is_not_refused_to_a_reservation_and_what_requests_took_is() {
    let app = without_sweeper(4_999_998).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    let open = "select count(*) from leases where state = 'open' and held_micros > 1500";
    assert_eq!(app.count(open).await, 1);
    let reserve = async |micros: i64| {
        let tokens = u64::try_from(micros / 3).unwrap();
        app.reserve(&app.reservation(organization, app.request(), tokens, 0)).await
    };
    assert_eq!(reserve(4_999_998 - RESERVED + 3).await.expect(402).json["code"], "insufficient_funds");
    assert_eq!(app.count(open).await, 1);
    let held = reserve(4_999_998 - RESERVED).await.expect(201);
    assert_eq!(app.balance(&client).await, (0, 4_999_998));
    reserve(3).await.expect(402);
    assert!(app.admit(&app.wanted(organization, "sim-large").await).await.is_none());
    // The request whose lease was closed ends as ever.
    app.settled(&event, 150).await;
    eventually("the posting", || async { (app.count("select count(*) from usage_events").await == 1).then_some(()) }).await;
    app.void(&held.string("id")).await.expect(204);
    assert_eq!(app.balance(&client).await, (4_999_998 - 150, 0));
    app.assert_clean().await;
}

/// [B-42] Of a lease that Redis has lost, and of one whose end has begun.
#[tokio::test]
async fn a_dead_sweeper_does_not_keep_from_a_reservation_what_an_ended_lease_holds() {
    for is_lost in [true, false] {
        let app = without_sweeper(RESERVED).await;
        let (organization, _) = app.organization();
        // What lies in a lost lease may be free, which nobody knows yet.
        let refused = if end_of_all(&app, organization, is_lost).await { 503 } else { 402 };
        app.reserve(&app.reservation(organization, app.request(), 500, 0)).await.expect(refused);
        app.turn.advance(Duration::from_mins(11));
        app.reserve(&app.reservation(organization, app.request(), 500, 0)).await.expect(201);
        app.assert_clean().await;
    }
}

/// [B-33] [B-40]
#[tokio::test]
async fn a_settlement_posts_what_was_used_and_returns_the_rest() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let reservation = app.reserve(&app.reservation(organization, app.request(), 1000, 1000)).await.expect(201);
    assert_eq!(reservation.json["amount_micros"], 15_000);
    let settled = app.settle(&reservation.string("id"), &app.usage(100, 10)).await.expect(200);
    assert_eq!((&settled.json["price_micros"], &settled.json["cost_micros"]), (&json!(420), &json!(350)));
    assert_eq!(app.balance(&client).await, (GRANT - 420, 0));
    let row = client.get("/v1/usage").await.expect(200).json["data"][0].clone();
    assert_eq!((&row["price_micros"], row.get("cost_micros")), (&json!(420), None), "what it cost us is nobody else's business");
    assert_eq!(app.count("select sum(cost_micros)::bigint from usage_events").await, 350, "the margin is not on the row");
    app.assert_clean().await;
}

/// [B-41]
#[tokio::test]
async fn a_reservation_resolves_once_and_the_same_call_again_gets_the_same_answer() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let body = app.reservation(organization, app.request(), 100, 100);
    let answers = join_all((0..64).map(|_| app.reserve(&body))).await;
    let first = answers[0].clone().expect(201);
    assert!(answers.iter().all(|answer| answer.json == first.json), "one request got several holds");
    let mut other = body.clone();
    other["max_output_tokens"] = json!(101);
    assert_eq!(app.reserve(&other).await.expect(409).json["code"], "reservation_conflict");
    let usage = app.usage(10, 10);
    let settled = join_all((0..64).map(|_| app.settle(answers[0].json["id"].as_str().unwrap(), &usage))).await;
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
    let reservation = app.hold(organization, 100, 100).await;
    for _ in 0..3 {
        app.void(&reservation).await.expect(204);
    }
    assert_eq!(app.balance(&client).await, (GRANT, 0));
    app.settle(&reservation, &app.usage(1, 1)).await.expect(409);
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

/// [B-32]
#[tokio::test]
async fn audio_is_held_at_its_own_rates_only_where_it_may_occur_and_refused_where_it_has_none() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let reserve = async |model: &str, audio: bool| {
        let mut body = app.reservation(organization, app.request(), 100, 100);
        (body["model"], body["audio"]) = (json!(model), json!(audio));
        app.reserve(&body).await
    };
    // Text costs 3 and 12 micro-units a token, audio 48 and 96.
    assert_eq!(reserve("gpt-4o", false).await.expect(201).json["amount_micros"], 1500);
    assert_eq!(reserve("gpt-4o", true).await.expect(201).json["amount_micros"], 14_400);
    reserve("sim-large", false).await.expect(201);
    assert_eq!(reserve("sim-large", true).await.expect(404).json["code"], "model_not_priced");
}
