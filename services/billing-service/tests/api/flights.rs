//! Requests in flight whose gateway died or was out of reach: settled by their last checkpoint, and made good when they report after all.

use std::time::Duration;

use billing_service::leases::{sweep_flights, sweep_leases};
use billing_service::rollups::differences;
use contracts::Shard;
use contracts::usage::UsageEvent;
use futures::future::join_all;
use money::TokenUsage;
use serde_json::json;
use testkit::eventually;
use testkit::http::{Answer, TestClient};

use crate::app::{App, GRANT};
use crate::gateway::RESERVED;
use crate::leases::{HELD, rows, without_sweeper};

/// The only request in flight is given up for dead.
async fn give_up(app: &App, client: &TestClient) {
    app.turn.advance(Duration::from_mins(5));
    sweep_flights(&app.state()).await.unwrap();
    eventually("the posting", || async { (rows(client).await.len() == 1).then_some(()) }).await;
}

/// A gateway tells us directly what a request used.
async fn tell(app: &App, event: &UsageEvent) -> Answer {
    app.gateway.post("/internal/v1/settlements", &serde_json::to_value(event).unwrap()).await
}

/// [B-42] [B-58]
#[tokio::test]
async fn a_request_whose_process_died_is_settled_by_its_last_checkpoint_after_its_deadline() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let (counted, silent) = (app.used(organization).await, app.used(organization).await);
    for output in [1, 4, 4] {
        assert!(app.admissions.checkpoint(organization, counted.request_id, &TokenUsage::text(10, output)).await.unwrap());
    }
    let (requests, tokens) = ("billing_flights_abandoned_total", "billing_flights_abandoned_tokens_total");
    let (unbilled, returned) = ("billing_flights_abandoned_unbilled_tokens_total", "billing_flights_abandoned_returned_micros_total");
    let before = (app.metric(requests).await, app.metric(tokens).await);
    let bounds_before = (app.metric(unbilled).await, app.metric(returned).await);
    app.turn.advance(Duration::from_secs(299));
    assert_eq!(sweep_flights(&app.state()).await.unwrap(), 0, "it may still be alive");
    app.turn.advance(Duration::from_secs(1));
    let swept = join_all((0..64).map(|_| async { sweep_flights(&app.state()).await.unwrap() })).await;
    assert_eq!(swept.iter().sum::<usize>(), 2, "each by one of them: {swept:?}");
    // Other tests count as well.
    assert!(app.metric(requests).await >= before.0 + 2.0, "both requests");
    assert!(app.metric(tokens).await >= before.1 + 14.0, "and what the checkpoint of one counted");
    assert!(app.metric(unbilled).await >= bounds_before.0 + 3.0, "as many as between the last two that differ");
    assert!(app.metric(returned).await >= bounds_before.1 + f64::from(2 * 1500 - 78), "and what is not charged of what was taken");
    eventually("the postings", || async { (rows(&client).await.len() == 2).then_some(()) }).await;
    let charged = 10 * 3 + 4 * 12;
    let rows = rows(&client).await;
    let row = |event: &UsageEvent| rows.iter().find(|row| row["request_id"] == event.request_id.to_string()).unwrap().clone();
    for (event, price) in [(&counted, charged), (&silent, 0)] {
        let row = row(event);
        assert_eq!((&row["counted_by"], &row["price_micros"]), (&json!("abandoned"), &json!(price)));
    }
    assert_eq!(app.balance(&client).await, (GRANT - charged, 0));
    assert!(!app.admissions.checkpoint(organization, counted.request_id, &TokenUsage::text(10, 5)).await.unwrap(), "it is over");
    app.assert_clean().await;
}

/// [B-43]
#[tokio::test]
async fn a_request_that_was_given_up_for_dead_pays_the_difference_when_it_reports_after_all() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    app.admissions.checkpoint(organization, event.request_id, &TokenUsage::text(10, 4)).await.unwrap();
    give_up(&app, &client).await;
    for _ in 0..2 {
        let answer = tell(&app, &event).await.expect(200);
        assert_eq!(answer.json["price_micros"], 150);
    }
    let rows = rows(&client).await;
    assert_eq!((rows.len(), &rows[0]["counted_by"], &rows[0]["price_micros"]), (1, &json!("reported"), &json!(150)));
    assert_eq!(app.balance(&client).await, (GRANT - 150, 0));
    app.assert_clean().await;
}

/// [B-43] Most of its prompt was read from a cache, and there was less of it to its model.
#[tokio::test]
async fn a_request_that_was_given_up_for_dead_has_back_what_it_used_less_than_its_checkpoint_said() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let grants = || async { client.get("/v1/grants").await.expect(200).json["data"].clone() };
    let (event, before) = (app.used(organization).await, grants().await);
    app.admissions.checkpoint(organization, event.request_id, &TokenUsage::text(40, 10)).await.unwrap();
    give_up(&app, &client).await;
    assert_eq!(app.balance(&client).await, (GRANT - 240, 0));
    for _ in 0..2 {
        let answer = tell(&app, &event).await.expect(200);
        assert_eq!(answer.json["price_micros"], 150);
    }
    let rows = rows(&client).await;
    assert_eq!((rows.len(), &rows[0]["counted_by"], &rows[0]["price_micros"]), (1, &json!("reported"), &json!(150)));
    assert_eq!(app.balance(&client).await, (GRANT - 150, 0));
    let (is, was) = (grants().await, before);
    assert_eq!((is.as_array().unwrap().len(), was.as_array().unwrap().len()), (1, 1), "it came back to where it was");
    assert_eq!(app.house("revenue").await, 150);
    assert_eq!(differences(&app.state().pool).await.unwrap(), Vec::<String>::new());
    app.assert_clean().await;
}

/// [B-33] Its price is for the request, whatever it used.
#[tokio::test]
async fn a_request_of_a_fixed_price_that_used_less_than_its_checkpoint_said_cost_us_less() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let rates = "{input: 1, cached_input: 1, cache_write: 1, output: 1, reasoning: 1}";
    let card = format!("cards:\n- {{model: fixed, cost: {rates}, fixed_price: 0.0001}}\n");
    app.import(&card, 0, app.clock.now(), false).await.unwrap();
    let event = UsageEvent { usage: TokenUsage::text(10, 4), ..app.used_of(organization, "fixed").await };
    app.admissions.checkpoint(organization, event.request_id, &TokenUsage::text(40, 10)).await.unwrap();
    give_up(&app, &client).await;
    let cost = async || (app.count("select cost_micros::bigint from usage_events").await, app.house("provider_cost").await);
    assert_eq!(cost().await, (50, -50));
    for _ in 0..2 {
        tell(&app, &event).await.expect(200);
    }
    assert_eq!(cost().await, (14, -14));
    assert_eq!(app.balance(&client).await, (GRANT - 100, 0));
    app.assert_clean().await;
}

/// [B-43] [B-50] Nobody has back more than was charged, whoever gives it back and in what order.
#[tokio::test]
async fn a_request_of_which_somebody_gave_back_most_has_only_the_rest_back_when_it_used_less() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    app.admissions.checkpoint(organization, event.request_id, &TokenUsage::text(40, 10)).await.unwrap();
    give_up(&app, &client).await;
    let (whose, which) = (organization.to_string(), event.request_id.to_string());
    let by_hand =
        ["wallet", "refund-usage", &whose, "--request", &which, "--amount-micros", "200", "--actor", "ada", "--reason", "it broke off"];
    super::wallet::run(&app, &by_hand).await.unwrap();
    assert_eq!(app.balance(&client).await, (GRANT - 40, 0));
    for _ in 0..2 {
        let answer = tell(&app, &event).await.expect(200);
        assert_eq!(answer.json["price_micros"], 200, "of the 90 that it used less, 40 were not given back before");
    }
    assert_eq!((app.balance(&client).await, app.house("revenue").await, app.house("refunds").await), ((GRANT, 0), 200, -200));
    assert_eq!(differences(&app.state().pool).await.unwrap(), Vec::<String>::new());
    app.assert_clean().await;
}

/// [B-43] It lives, and could not reach Redis before its request was given up.
#[tokio::test]
async fn a_request_that_was_given_up_for_dead_pays_the_difference_also_when_it_settles_as_ever() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    give_up(&app, &client).await;
    assert_eq!(app.balance(&client).await, (GRANT, 0));
    for _ in 0..2 {
        app.settled(&event, 150).await;
    }
    let charged = || async { (rows(&client).await[0]["price_micros"] == 150).then_some(()) };
    eventually("the difference", charged).await;
    let rows = rows(&client).await;
    assert_eq!((rows.len(), &rows[0]["counted_by"]), (1, &json!("reported")));
    assert_eq!(app.balance(&client).await, (GRANT - 150, 0));
    app.assert_clean().await;
}

/// [B12] A gateway that ends while Redis is away tells us directly; the note that it left in Redis charges nothing more.
#[tokio::test]
async fn a_request_that_was_settled_past_redis_is_not_settled_again_by_its_note() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    tell(&app, &event).await.expect(200);
    // Redis may have it too, and give its unused part to the lease once more: so the lease ends.
    assert_eq!(app.count("select count(*) from leases where state = 'closing'").await, 1);
    sweep_leases(&app.state()).await.unwrap();
    assert_eq!(app.balance(&client).await, (GRANT - 150, 0));
    app.turn.advance(Duration::from_mins(5));
    assert_eq!(sweep_flights(&app.state()).await.unwrap(), 1);
    let stream = Shard::of(organization).usage_stream();
    eventually("an empty stream", || async { (app.length(&stream).await == 0).then_some(()) }).await;
    assert_eq!((app.balance(&client).await, rows(&client).await.len()), ((GRANT - 150, 0), 1));
    app.assert_clean().await;
}

/// [B-41] The gateway's question was answered and the answer did not come; then it ends, and tells us directly.
#[tokio::test]
async fn what_a_settlement_in_redis_has_returned_is_not_returned_again_by_one_past_it() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    let shard = Shard::of(organization);
    let (flight, lease) = (shard.key(&format!("flight:{}", event.request_id)), shard.key(&format!("lease:{organization}")));
    // What the script leaves behind, but for the message, which is on its way.
    let mut settled = redis::pipe();
    settled
        .del(&flight)
        .hset(&flight, "taken", 150)
        .hincr(&lease, "remaining", RESERVED - 150)
        .zrem(shard.key("flights"), event.request_id.to_string());
    let () = settled.query_async(&mut app.redis.redis.connection()).await.unwrap();
    for _ in 0..2 {
        tell(&app, &event).await.expect(200);
    }
    let left = app.admissions.remaining(organization, None).await.unwrap().unwrap().1;
    assert_eq!((app.count(HELD).await, app.balance(&client).await), (left, (GRANT - 150, 0)));
    app.assert_clean().await;
}

/// [B-41] After a posting that was made nobody might come to its lease: that has ended before.
#[tokio::test]
async fn a_lease_ends_before_what_was_told_past_redis_is_posted() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    app.as_owner(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not now'; end $$;
         create trigger refuse before insert on usage_events for each row execute function refuse()",
    )
    .await;
    assert!(tell(&app, &event).await.status.is_server_error());
    assert_eq!(app.count("select count(*) from leases where state = 'closing'").await, 1);
    app.as_owner("drop trigger refuse on usage_events").await;
    // Redis answers again, and nothing goes back into the lease.
    sweep_leases(&app.state()).await.unwrap();
    assert_eq!(app.settled(&event, 150).await, RESERVED);
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    assert_eq!((app.balance(&client).await, app.count(HELD).await), ((GRANT - 150, 0), 0));
    app.assert_clean().await;
}
