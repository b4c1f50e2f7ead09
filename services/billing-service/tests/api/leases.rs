//! Leases: money that is spent without asking, never more than there is, and all of it accounted for.

use std::time::Duration;

use billing_service::leases::sweep_leases;
use chassis::config::Millis;
use contracts::usage::{CountedBy, UsageEvent};
use contracts::{LeaseId, Shard};
use futures::future::join_all;
use money::TokenUsage;
use serde_json::{Value, json};
use testkit::eventually;

use crate::app::{App, GRANT};
use crate::gateway::RESERVED;

pub const HELD: &str = "select coalesce(sum(held_micros), 0)::bigint from leases where state <> 'closed'";
const OPEN: &str = "select count(*) from leases where state in ('opening', 'open')";

/// A service whose sweepers come when the test says so.
pub async fn without_sweeper(grant: i64) -> App {
    App::with(|config| (config.sweep, config.signup_grant) = (Millis(Duration::from_hours(1)), grant)).await
}

/// All that the organization has been charged, once the stream is empty.
pub async fn rows(client: &testkit::http::TestClient) -> Vec<Value> {
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
    assert_eq!(app.settled(&event, 150).await, 150);
    assert_eq!(app.settled(&event, 150).await, 150, "the same answer again");
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
    let taken = join_all((0..64).map(|_| app.settled(&event, 150))).await;
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
    app.settled(&event, 150).await;
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    sweep_leases(&app.state()).await.unwrap();
    assert_eq!(app.count(OPEN).await, 1, "not before its time");
    app.turn.advance(Duration::from_mins(1));
    sweep_leases(&app.state()).await.unwrap();
    let wallet = "select balance_micros from accounts where kind = 'wallet' and organization_id is not null";
    assert_eq!((app.count(wallet).await, app.count(HELD).await), (GRANT - 150 - RESERVED, RESERVED), "what is in flight stays held");
    // Its request ends on a lease that is closed: what it did not use goes straight to the wallet.
    assert_eq!(app.settled(&unfinished, 150).await, RESERVED);
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
    app.settled(&event, 0).await;
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
        app.settled(&UsageEvent { usage: TokenUsage::default(), ..event.clone() }, 0).await;
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
    assert_eq!(app.settled(&event, 150).await, RESERVED);
    assert_eq!(app.settled(&after, 150).await, 150);
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

/// All of a wallet is taken for a request that nobody ever settles, and its lease is lost, or its end has begun; whether it is lost.
pub async fn end_of_all(app: &App, organization: identity::OrganizationId, is_lost: bool) -> bool {
    app.used(organization).await;
    if is_lost {
        let () = redis::cmd("FLUSHALL").query_async(&mut app.redis.redis.connection()).await.unwrap();
        app.lease(organization, RESERVED, None).await.expect(503);
    } else {
        app.as_owner("update leases set state = 'closing'").await;
    }
    is_lost
}

/// [B-42] Of the lost lease, and of one whose last request is never settled.
#[tokio::test]
async fn a_dead_sweeper_does_not_keep_from_its_owner_what_a_lease_holds_of_which_nothing_can_be_in_flight() {
    for is_lost in [true, false] {
        let app = without_sweeper(RESERVED).await;
        let (organization, client) = app.organization();
        let refused = if end_of_all(&app, organization, is_lost).await { 503 } else { 402 };
        app.lease(organization, RESERVED, None).await.expect(refused);
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
    assert_eq!(app.settled(&event, 2400).await, 2400);
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    assert_eq!(app.count("select balance_micros from accounts where kind = 'debt'").await, -400);
    assert_eq!(app.admit(&UsageEvent { request_id: app.request(), reserved_micros: 1, ..event }).await, None);
    app.assert_clean().await;
}
