//! Leases: money that is spent without asking, never more than there is, and all of it accounted for.

use std::time::Duration;

use admission::{End, Settlement};
use billing_service::leases::{sweep_flights, sweep_leases};
use billing_service::rollups::differences;
use chassis::config::Millis;
use contracts::usage::{CountedBy, UsageEvent};
use contracts::{LeaseId, Shard};
use futures::future::join_all;
use money::TokenUsage;
use serde_json::{Value, json};
use testkit::eventually;

use crate::app::{App, GRANT};
use crate::gateway::RESERVED;

const HELD: &str = "select coalesce(sum(held_micros), 0)::bigint from leases where state <> 'closed'";
const OPEN: &str = "select count(*) from leases where state in ('opening', 'open')";

/// A service whose sweepers come when the test says so.
async fn without_sweeper(grant: i64) -> App {
    App::with(|config| (config.sweep, config.signup_grant) = (Millis(Duration::from_hours(1)), grant)).await
}

async fn settle(app: &App, event: &UsageEvent, price: i64) -> i64 {
    let settlement = Settlement { event, price_micros: price, end: End::Used, counted: &[], traceparent: None };
    app.admissions.settle(&settlement).await.unwrap().taken_micros
}

/// All that the organization has been charged, once the stream is empty.
async fn rows(client: &testkit::http::TestClient) -> Vec<Value> {
    client.get("/v1/usage").await.expect(200).json["data"].as_array().unwrap().clone()
}

/// [B-37] [B-38] [B17]
#[tokio::test(flavor = "multi_thread")]
async fn with_money_for_k_requests_exactly_k_of_many_at_once_are_admitted_over_any_number_of_gateways() {
    const K: i64 = 21;
    let app = App::with(|config| config.signup_grant = K * RESERVED + 700).await;
    let (organization, client) = app.organization();
    let template = template(&app, organization).await;
    let requests: Vec<UsageEvent> = (0..64).map(|_| UsageEvent { request_id: app.request(), ..template.clone() }).collect();
    let admitted: Vec<LeaseId> = join_all(requests.iter().map(|event| app.admit(event))).await.into_iter().flatten().collect();
    assert_eq!(i64::try_from(admitted.len()).unwrap(), K);
    assert_eq!(app.balance(&client).await, (700, K * RESERVED), "the rest is too little for one more and stays spendable");
    app.assert_clean().await;
}

/// An event that was not admitted yet.
async fn template(app: &App, organization: identity::OrganizationId) -> UsageEvent {
    let card = app.count("select id from rate_cards where model = 'sim-large'").await;
    let (stranger, _) = app.organization();
    UsageEvent { organization_id: organization, rate_card_id: card, usage: TokenUsage::default(), ..app.used(stranger).await }
}

/// [B-40]
#[tokio::test]
async fn what_a_request_did_not_use_is_spendable_again_at_once_and_its_price_is_posted_once() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    assert_eq!(app.balance(&client).await, (GRANT - RESERVED, RESERVED));
    assert_eq!(settle(&app, &event, 150).await, 150);
    assert_eq!(settle(&app, &event, 150).await, 150, "the same answer again");
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    assert_eq!(app.balance(&client).await, (GRANT - 150, 0));
    assert_eq!(app.count("select count(*) from ledger_transactions where kind = 'settlement'").await, 1);
    app.assert_clean().await;
}

/// [B-41]
#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_settlements_of_one_request_at_once_post_it_once() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    let taken = join_all((0..64).map(|_| settle(&app, &event, 150))).await;
    assert!(taken.iter().all(|taken| *taken == 150), "{taken:?}");
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    let stream = Shard::of(organization).usage_stream();
    eventually("an empty stream", || async { (app.length(&stream).await == 0).then_some(()) }).await;
    assert_eq!((app.balance(&client).await, rows(&client).await.len()), ((GRANT - 150, 0), 1));
    app.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_gateways_that_find_a_lease_dry_fill_it_once() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let answers = join_all((0..64).map(|_| app.lease(organization, RESERVED, None))).await;
    let first = answers[0].json.clone();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.json == first), "one lease for all");
    assert_eq!((first["funded_micros"].as_i64(), app.count(HELD).await, app.count(OPEN).await), (Some(100_000), 100_000, 1));
    let seen = contracts::leases::SeenLease { lease_id: first["id"].as_str().unwrap().parse().unwrap(), funded_micros: 100_000 };
    let answers = join_all((0..64).map(|_| app.lease(organization, RESERVED, Some(seen)))).await;
    let second = answers[0].json["funded_micros"].as_i64().unwrap();
    assert!(answers.iter().all(|answer| answer.json["funded_micros"] == second) && second > 100_000);
    assert_eq!(app.count("select count(*) from ledger_transactions where kind = 'lease'").await, 2);
    app.assert_clean().await;
}

#[tokio::test]
async fn a_lease_that_nobody_fills_ends_and_what_is_left_is_in_the_wallet_again() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let (event, unfinished) = (app.used(organization).await, app.used(organization).await);
    settle(&app, &event, 150).await;
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    sweep_leases(&app.state()).await.unwrap();
    assert_eq!(app.count(OPEN).await, 1, "not before its time");
    app.turn.advance(Duration::from_mins(1));
    sweep_leases(&app.state()).await.unwrap();
    let wallet = "select balance_micros from accounts where kind = 'wallet' and organization_id is not null";
    assert_eq!((app.count(wallet).await, app.count(HELD).await), (GRANT - 150 - RESERVED, RESERVED), "what is in flight stays held");
    // Its request ends on a lease that is closed: what it did not use goes straight to the wallet.
    assert_eq!(settle(&app, &unfinished, 150).await, RESERVED);
    eventually("the posting", || async { (rows(&client).await.len() == 2).then_some(()) }).await;
    assert_eq!((app.balance(&client).await, app.count(HELD).await), ((GRANT - 300, 0), 0));
    sweep_leases(&app.state()).await.unwrap();
    assert_eq!(app.count("select count(*) from leases where state <> 'closed'").await, 0);
    app.assert_clean().await;
}

/// After Redis was lost all leases end at once: more than a sweep takes, and more than it takes may be such as cannot.
#[tokio::test]
async fn leases_that_cannot_end_keep_no_other_from_it_and_many_end_in_one_turn() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    // The first 120 say that they hold what the ledger does not.
    let insert =
        "insert into leases (id, organization_id, currency, epoch, instance, state, funded_micros, held_micros, fundings, low_micros,
          opened_at, funded_at, deadline, drained_at)
        select lpad(n::text, 32, '0')::uuid, $1, 'USD', n, 'gone', 'lost', 1, case when n <= 120 then 1 else 0 end, 1, 0, $2, $2, $2, $2
        from generate_series(1, 250) n";
    let now = app.clock.now();
    sqlx::query(insert).bind(organization.uuid()).bind(now).execute(&app.database.owner).await.unwrap();
    let state = app.state();
    let left = "select count(*) from leases where state <> 'closed'";
    for (more, open) in [(true, 250), (true, 170), (false, 120)] {
        assert_eq!(sweep_leases(&state).await.unwrap(), more, "whether there are more than a sweep takes");
        assert_eq!(app.count(left).await, open);
    }
    app.as_owner("update leases set held_micros = 0").await;
    assert!(!sweep_leases(&state).await.unwrap());
    assert_eq!(app.count(left).await, 120, "they are set aside");
    app.turn.advance(Duration::from_hours(1));
    while sweep_leases(&state).await.unwrap() {}
    assert_eq!(app.count(left).await, 0, "and then looked at again");
    app.assert_clean().await;
}

/// Money that lies in a lease which is just ending is not refused to its owner.
#[tokio::test]
async fn a_lease_in_the_middle_of_its_end_does_not_keep_its_money_from_the_next_request() {
    let app = without_sweeper(2 * RESERVED).await;
    let (organization, _) = app.organization();
    let event = UsageEvent { usage: TokenUsage::default(), ..app.used(organization).await };
    settle(&app, &event, 0).await;
    // The sweeper died after its first step.
    app.as_owner("update leases set state = 'closing'").await;
    app.used(organization).await;
    app.used(organization).await;
    assert_eq!(app.admit(&UsageEvent { request_id: app.request(), ..event }).await, None, "and not one request more");
    app.assert_clean().await;
}

/// What kept it may be over before its pause is.
#[tokio::test]
async fn a_lease_that_was_set_aside_is_still_ended_by_who_needs_its_money() {
    let app = without_sweeper(2 * RESERVED).await;
    let (one, two) = (app.organization().0, app.organization().0);
    let event = app.used(one).await;
    for event in [&event, &app.used(two).await] {
        settle(&app, &UsageEvent { usage: TokenUsage::default(), ..event.clone() }, 0).await;
    }
    app.as_owner("update leases set state = 'closing'").await;
    let key = Shard::of(one).key(&format!("lease:{one}"));
    let mut redis = app.redis.redis.connection();
    let away = format!("{key}:away");
    let () = redis::pipe().rename(&key, &away).set(&key, "no lease").query_async(&mut redis).await.unwrap();
    assert!(!sweep_leases(&app.state()).await.unwrap());
    let states = "select string_agg(state || (next_at is not null), ' ' order by state) from leases";
    let of_both = || async { sqlx::query_scalar::<_, String>(states).fetch_one(&app.database.owner).await.unwrap() };
    assert_eq!(of_both().await, "closedfalse closingtrue", "one keeps not the other");
    let () = redis::cmd("RENAME").arg(&away).arg(&key).query_async(&mut redis).await.unwrap();
    sweep_leases(&app.state()).await.unwrap();
    assert_eq!(of_both().await, "closedfalse closingtrue", "it is left alone");
    let event = UsageEvent { request_id: app.request(), reserved_micros: 2 * RESERVED, ..event };
    app.admit(&event).await.expect("all that there is");
    assert_eq!(of_both().await, "closedfalse closedfalse openfalse");
    app.assert_clean().await;
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
    app.turn.advance(Duration::from_mins(5));
    sweep_flights(&app.state()).await.unwrap();
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    for _ in 0..2 {
        let answer = app.gateway.post("/internal/v1/settlements", &serde_json::to_value(&event).unwrap()).await.expect(200);
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
    app.turn.advance(Duration::from_mins(5));
    sweep_flights(&app.state()).await.unwrap();
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    assert_eq!(app.balance(&client).await, (GRANT - 240, 0));
    for _ in 0..2 {
        let answer = app.gateway.post("/internal/v1/settlements", &serde_json::to_value(&event).unwrap()).await.expect(200);
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
    app.turn.advance(Duration::from_mins(5));
    sweep_flights(&app.state()).await.unwrap();
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    let cost = async || (app.count("select cost_micros::bigint from usage_events").await, app.house("provider_cost").await);
    assert_eq!(cost().await, (50, -50));
    for _ in 0..2 {
        app.gateway.post("/internal/v1/settlements", &serde_json::to_value(&event).unwrap()).await.expect(200);
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
    app.turn.advance(Duration::from_mins(5));
    sweep_flights(&app.state()).await.unwrap();
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    let (whose, which) = (organization.to_string(), event.request_id.to_string());
    let by_hand =
        ["wallet", "refund-usage", &whose, "--request", &which, "--amount-micros", "200", "--actor", "ada", "--reason", "it broke off"];
    super::wallet::run(&app, &by_hand).await.unwrap();
    assert_eq!(app.balance(&client).await, (GRANT - 40, 0));
    for _ in 0..2 {
        let answer = app.gateway.post("/internal/v1/settlements", &serde_json::to_value(&event).unwrap()).await.expect(200);
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
    app.turn.advance(Duration::from_mins(5));
    sweep_flights(&app.state()).await.unwrap();
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    assert_eq!(app.balance(&client).await, (GRANT, 0));
    for _ in 0..2 {
        settle(&app, &event, 150).await;
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
    app.gateway.post("/internal/v1/settlements", &serde_json::to_value(&event).unwrap()).await.expect(200);
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
        app.gateway.post("/internal/v1/settlements", &serde_json::to_value(&event).unwrap()).await.expect(200);
    }
    let left = app.admissions.remaining(organization, None).await.unwrap().unwrap().1;
    assert_eq!((app.count(HELD).await, app.balance(&client).await), (left, (GRANT - 150, 0)));
    app.assert_clean().await;
}

/// Redis lost everything: nothing is spent twice, and what was in flight is settled by its own process.
#[tokio::test]
async fn a_lease_that_redis_lost_is_replaced_and_nothing_of_it_is_spent_twice() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    let () = redis::cmd("FLUSHALL").query_async(&mut app.redis.redis.connection()).await.unwrap();
    let after = app.used(organization).await;
    assert_ne!(event.lease_id, after.lease_id);
    let epochs = "select max(epoch) from leases";
    assert_eq!((app.count(epochs).await, app.count(OPEN).await, app.count(HELD).await), (2, 1, 200_000), "both are held");
    // The flight is not known any more: what it took stays with its own lease, and the rest of that goes to the wallet.
    assert_eq!(settle(&app, &event, 150).await, RESERVED);
    assert_eq!(settle(&app, &after, 150).await, 150);
    // Its consumers make their groups again by themselves.
    eventually("the postings", || async { (rows(&client).await.len() == 2).then_some(()) }).await;
    app.turn.advance(Duration::from_mins(7));
    for _ in 0..2 {
        sweep_leases(&app.state()).await.unwrap();
    }
    assert_eq!((app.balance(&client).await, app.count(HELD).await), ((GRANT - 300, 0), 0));
    app.assert_clean().await;
}

/// The whole wallet was in the lease: until it is known what was taken from it, there is neither a refusal nor a gift.
#[tokio::test]
async fn while_the_rest_of_a_wallet_is_bound_in_a_lost_lease_requests_are_told_to_come_again() {
    let app = without_sweeper(RESERVED).await;
    let (organization, client) = app.organization();
    app.used(organization).await;
    let () = redis::cmd("FLUSHALL").query_async(&mut app.redis.redis.connection()).await.unwrap();
    let answer = app.lease(organization, RESERVED, None).await.expect(503);
    assert!(!answer.header("retry-after").is_empty());
    app.turn.advance(Duration::from_mins(7));
    sweep_leases(&app.state()).await.unwrap();
    assert_eq!(app.balance(&client).await, (RESERVED, 0));
    app.lease(organization, RESERVED, None).await.expect(200);
    app.assert_clean().await;
}

/// [B-42] Of the lost lease, and of one whose last request is never settled.
#[tokio::test]
async fn a_dead_sweeper_does_not_keep_from_its_owner_what_a_lease_holds_of_which_nothing_can_be_in_flight() {
    for is_lost in [true, false] {
        let app = without_sweeper(RESERVED).await;
        let (organization, client) = app.organization();
        app.used(organization).await;
        if is_lost {
            let () = redis::cmd("FLUSHALL").query_async(&mut app.redis.redis.connection()).await.unwrap();
            app.lease(organization, RESERVED, None).await.expect(503);
        } else {
            app.as_owner("update leases set state = 'closing'").await;
            app.lease(organization, RESERVED, None).await.expect(402);
        }
        let state = "select count(*) from leases where state in ('lost', 'draining') and held_micros > 0";
        assert_eq!(app.count(state).await, 1);
        app.turn.advance(Duration::from_mins(11));
        app.lease(organization, RESERVED, None).await.expect(200);
        assert_eq!(app.balance(&client).await.0, RESERVED, "in the next lease");
        app.assert_clean().await;
    }
}

/// A call that broke off between the ledger and Redis.
#[tokio::test]
async fn a_lease_that_redis_did_not_hear_of_is_filled_by_the_next_request() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    app.used(organization).await;
    let key = Shard::of(organization).key(&format!("lease:{organization}"));
    // Filled in the ledger alone, with all that there is.
    app.as_owner(
        "begin;
         update leases set funded_micros = 5000000, held_micros = 5000000, fundings = 2;
         insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'lease', 'x', now());
         insert into ledger_entries (transaction_id, account_id, amount_micros)
         select t.id, a.id, case a.kind when 'holds' then 4900000 else -4900000 end from ledger_transactions t, accounts a
         where t.external_key = 'x' and a.organization_id is not null and a.kind in ('wallet', 'holds');
         commit;",
    )
    .await;
    let event = UsageEvent { request_id: app.request(), reserved_micros: 200_000, ..template(&app, organization).await };
    app.admit(&event).await.expect("the money is there");
    let funded: i64 = redis::cmd("HGET").arg(key).arg("funded").query_async(&mut app.redis.redis.connection()).await.unwrap();
    assert_eq!(funded, 5_000_000);
    assert_eq!(app.balance(&client).await.0, GRANT - RESERVED - 200_000);
    app.assert_clean().await;
}

#[tokio::test]
async fn the_price_list_and_leases_are_for_gateways_only() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let body = json!({"organization_id": organization, "needed_micros": 1, "seen": null});
    app.private.post("/internal/v1/leases", &body).await.expect(403);
    app.private.get("/internal/v1/rate-cards").await.expect(403);
    client.post("/internal/v1/leases", &body).await.expect(404);
    let list = app.gateway.get("/internal/v1/rate-cards").await.expect(200).json["data"].clone();
    let card = list.as_array().unwrap().iter().find(|card| card["model"] == "sim-large").unwrap();
    assert_eq!((&card["price"]["base"]["input"], &card["price"]["base"]["output"]), (&json!(3_000_000), &json!(12_000_000)));
    app.gateway
        .post("/internal/v1/leases", &json!({"organization_id": organization, "needed_micros": 1, "seen": null, "x": 1}))
        .await
        .expect(422);
}

/// [B-40] Beyond what was reserved, the lease itself pays first.
#[tokio::test]
async fn usage_above_the_reservation_comes_from_the_lease_then_the_wallet_then_is_owed() {
    let app = without_sweeper(2000).await;
    let (organization, client) = app.organization();
    let mut event = app.used(organization).await;
    event.usage = TokenUsage::text(0, 200);
    event.counted_by = CountedBy::Reported;
    assert_eq!(settle(&app, &event, 2400).await, 2400);
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    assert_eq!(app.count("select balance_micros from accounts where kind = 'debt'").await, -400);
    assert_eq!(app.admit(&UsageEvent { request_id: app.request(), reserved_micros: 1, ..event }).await, None);
    app.assert_clean().await;
}

/// Ends all leases, ten minutes later, when nothing is in flight on them any more.
async fn end_all(app: &App) {
    app.turn.advance(Duration::from_mins(10));
    eventually("the end of all leases", || async {
        sweep_leases(&app.state()).await.unwrap();
        (app.count("select count(*) from leases where state <> 'closed'").await == 0).then_some(())
    })
    .await;
}

/// Takes out leases that ended long ago, as the service does each hour.
async fn retire(app: &App) {
    billing_service::leases::retention::keep(&app.state(), &tokio_util::sync::CancellationToken::new()).await.unwrap();
}

const LEASES: &str = "select count(*) from leases";

/// An epoch never comes again: Redis would take the lease for one that is over.
#[tokio::test]
async fn leases_that_ended_a_week_ago_go_and_each_organization_keeps_its_last_one_from_which_its_epochs_go_on() {
    let app = without_sweeper(GRANT).await;
    let ((ada, client), (eve, _)) = (app.organization(), app.organization());
    for (organization, posted) in [(ada, 1), (eve, 2), (ada, 3), (ada, 4)] {
        settle(&app, &app.used(organization).await, 150).await;
        eventually("the posting", || async { (app.count("select count(*) from usage_events").await == posted).then_some(()) }).await;
        end_all(&app).await;
    }
    // One that cannot end.
    let insert = "insert into leases (id, organization_id, currency, epoch, instance, state, funded_micros, held_micros, fundings, low_micros,
          opened_at, funded_at, deadline, drained_at) values (lpad('1', 32, '0')::uuid, $1, 'USD', 0, 'gone', 'lost', 1, 0, 1, 0, $2, $2, $2, $2)";
    sqlx::query(insert).bind(ada.uuid()).bind(app.clock.now()).execute(&app.database.owner).await.unwrap();
    retire(&app).await;
    assert_eq!(app.count(LEASES).await, 5, "none is so old");
    app.turn.advance(Duration::from_hours(7 * 24) - Duration::from_mins(10));
    retire(&app).await;
    assert_eq!(app.count(LEASES).await, 4, "Ada's first ended more than a week ago, and Eve's, which is her last one");
    app.turn.advance(Duration::from_hours(30 * 24));
    retire(&app).await;
    let left = "select string_agg(epoch::text, ' ' order by epoch) from leases where organization_id = $1";
    let left = sqlx::query_scalar::<_, String>(left).bind(ada.uuid());
    assert_eq!((app.count(LEASES).await, left.fetch_one(&app.database.owner).await.unwrap().as_str()), (3, "0 3"));
    assert_eq!(
        app.count("select count(*) from usage_events where lease_id is not null").await,
        4,
        "what was used still says of which it was"
    );
    app.used(ada).await;
    assert_eq!(app.count("select max(epoch) from leases").await, 4);
    assert_eq!(app.balance(&client).await, (GRANT - 450 - RESERVED, RESERVED));
    app.assert_clean().await;
}

#[tokio::test]
async fn many_leases_that_ended_long_ago_go_in_one_turn_of_several_replicas() {
    let app = without_sweeper(GRANT).await;
    let (organization, _) = app.organization();
    let insert = "insert into leases (id, organization_id, currency, epoch, instance, state, funded_micros, held_micros, fundings, low_micros,
          opened_at, funded_at, deadline, drained_at, closed_at)
        select lpad(n::text, 32, '0')::uuid, $1, 'USD', n, 'gone', 'closed', 1, 0, 1, 0, $2, $2, $2, $2, $2 from generate_series(1, 2500) n";
    let ended = app.clock.now() - chrono::TimeDelta::days(8);
    sqlx::query(insert).bind(organization.uuid()).bind(ended).execute(&app.database.owner).await.unwrap();
    join_all((0..4).map(|_| retire(&app))).await;
    assert_eq!((app.count(LEASES).await, app.count("select max(epoch) from leases").await), (1, 2500));
}

/// [B-41] It had been set aside until somebody mended why.
#[tokio::test]
async fn what_is_told_when_its_lease_is_long_gone_is_posted_once_and_the_wallet_pays() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    // As the settling script leaves it; the message is somewhere else.
    let shard = Shard::of(organization);
    let mut settled = redis::pipe();
    settled.del(shard.key(&format!("flight:{}", event.request_id))).zrem(shard.key("flights"), event.request_id.to_string());
    let () = settled.query_async(&mut app.redis.redis.connection()).await.unwrap();
    end_all(&app).await;
    settle(&app, &app.used(organization).await, 150).await;
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    end_all(&app).await;
    app.turn.advance(Duration::from_hours(8 * 24));
    retire(&app).await;
    assert_eq!(app.count(LEASES).await, 1, "the one after it is the last one");
    for _ in 0..2 {
        app.publish(organization, &serde_json::to_string(&event).unwrap()).await;
    }
    eventually("the posting", || async { (rows(&client).await.len() == 2).then_some(()) }).await;
    eventually("an empty stream", || async { (app.length(&shard.usage_stream()).await == 0).then_some(()) }).await;
    assert_eq!(app.balance(&client).await, (GRANT - 300, 0));
    app.assert_clean().await;
}
