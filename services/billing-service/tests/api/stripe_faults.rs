//! What goes wrong between us and Stripe, and costs nothing.

use std::sync::Mutex;
use std::time::Duration;

use billing_service::stripe::call::Call;
use billing_service::stripe::transport::{Transport, TransportError};
use chassis::Random;
use chrono::TimeDelta;
use futures::future::join_all;
use serde_json::json;
use stripe_simulator::{Fault, FaultKind, Options, StripeSimulator};
use testkit::eventually;

use super::shop::Shop;

const MONTH: Duration = Duration::from_hours(32 * 24);

/// [B-63] [B-65] [B13] At each of the requests that collect a charge: done and not answered, done and answered with an error that Stripe
/// plays back from then on, not done and so answered, or too many requests.
#[tokio::test]
async fn a_charge_is_collected_once_whatever_fails_on_the_way() {
    let kinds = [FaultKind::ErrorAfterEffect, FaultKind::ErrorBeforeEffect, FaultKind::RateLimited];
    let paths = ["/v1/invoices", "/v1/invoiceitems", "/v1/invoices/"];
    let shop = Shop::open().await;
    let mut clients = Vec::new();
    for _ in 0..kinds.len() * paths.len() {
        let (_, client) = shop.customer();
        shop.pay(&shop.plan(&client, "team").await.expect(201));
        clients.push(client);
    }
    shop.settle().await;
    let begun = shop.at_stripe();
    for kind in kinds {
        for path in paths {
            shop.stripe.turn_knobs(|knobs| knobs.faults.push(Fault::next(kind, "POST", path)));
        }
    }
    shop.pass(MONTH);
    eventually("all is collected", || async {
        shop.pass(Duration::from_mins(10));
        shop.send().await;
        for event in shop.news() {
            shop.deliver(&event).await;
        }
        shop.handled().await;
        let unsent = shop.app.count("select count(*) from intents where sent_at is null").await;
        let charged = shop.app.count("select count(*) from subscription_charges where reason <> 'start'").await;
        (unsent == 0 && charged == 9).then_some(())
    })
    .await;
    shop.settle().await;
    assert_eq!(shop.at_stripe() - begun, 9 * 10_000, "somebody was charged twice, or not at all");
    for client in &clients {
        assert_eq!(shop.app.balance(client).await, (120_000_000, 0));
    }
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-64] After a day a key may be forgotten: what was done under it is looked for before anything is done again.
#[tokio::test]
async fn a_late_try_looks_for_what_an_earlier_one_did_before_it_uses_a_new_key() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    // Collected, and the answer lost.
    let lost = Fault::next(FaultKind::ErrorAfterEffect, "POST", "/v1/invoices/");
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![lost.clone(), lost]);
    shop.pass(MONTH);
    eventually("the first try", || async {
        (shop.app.count("select count(*) from intents where sent_at is null and last_status = 500").await == 1).then_some(())
    })
    .await;
    // Longer than Stripe remembers.
    shop.pass(Duration::from_hours(30));
    shop.settle().await;
    eventually("it is done", || async {
        shop.pass(Duration::from_hours(1));
        shop.send().await;
        (shop.app.count("select count(*) from intents where sent_at is null").await == 0).then_some(())
    })
    .await;
    shop.settle().await;
    assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (20_000, (120_000_000, 0)));
    let asked = "select count(*) from stripe_invoices where status <> 'draft'";
    assert_eq!(shop.app.count(asked).await, 1, "what was begun was begun anew, and both may be collected");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-64] What an earlier try made is not among the newest hundred.
#[tokio::test]
async fn a_late_try_finds_what_an_earlier_one_did_among_all_that_others_have_done_since() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let (payment, customer) = (shop.payment("payment_intent.succeeded"), shop.stripe_customer(organization).await);
    let (balance, cent) = (format!("/v1/customers/{customer}/balance_transactions"), ("amount", "1"));
    let refund = [("payment_intent", payment.as_str()), cent, ("metadata[operation]", "refund")];
    let moved = [("currency", "usd"), cent, ("metadata[operation]", "return")];
    let first = [shop.dashboard("/v1/refunds", &refund).await["id"].clone(), shop.dashboard(&balance, &moved).await["id"].clone()];
    for _ in 0..100 {
        shop.dashboard("/v1/refunds", &refund[..2]).await;
        shop.dashboard(&balance, &moved[..2]).await;
    }
    sqlx::query(
        "insert into intents (id, kind, subject, organization_id, idempotency_key, payload, attempts, next_attempt_at, created_at)
         select gen_random_uuid(), kind, key, $1, key, jsonb_build_object('payment_intent', $2, 'amount_minor', 1, 'currency', 'USD'), 1, $3,
           $3 - interval '2 days' from (values ('payment.refund', 'refund'), ('balance.return', 'return')) v (kind, key)",
    )
    .bind(organization.uuid())
    .bind(&payment)
    .bind(shop.app.clock.now())
    .execute(&shop.app.database.owner)
    .await
    .unwrap();
    shop.send().await;
    eventually("both are sent", || async {
        (shop.app.count("select count(*) from intents where sent_at is null").await == 0).then_some(())
    })
    .await;
    let found = "select array_agg(external_id order by kind desc) from intents where idempotency_key in ('refund', 'return')";
    let found: Vec<String> = sqlx::query_scalar(found).fetch_one(&shop.app.database.owner).await.unwrap();
    assert_eq!(json!(found), json!(first), "it was done again");
}

/// [B-65] [B-68] Its servers failed, before or after they had made it, and say so for a day under the key of that.
#[tokio::test]
async fn a_customer_that_stripe_failed_to_make_is_there_within_the_hours_and_is_one() {
    for kind in [FaultKind::ErrorBeforeEffect, FaultKind::ErrorAfterEffect] {
        let shop = Shop::open().await;
        shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(kind, "POST", "/v1/customers")]);
        let ((organization, _), began) = (shop.customer(), shop.app.clock.now());
        sqlx::query(
            "insert into stripe_customers (organization_id, email, name, idempotency_key, next_attempt_at, created_at) values ($1, '', 'Ada', 'key', $2, $2)",
        )
        .bind(organization.uuid())
        .bind(began)
        .execute(&shop.app.database.owner)
        .await
        .unwrap();
        eventually("it is made", || async {
            shop.pass(Duration::from_secs(10));
            (shop.app.count("select count(*) from stripe_customers where customer_id is null").await == 0).then_some(())
        })
        .await;
        assert!(shop.app.clock.now() - began < TimeDelta::hours(12));
        let customers = shop.state.stripe.as_ref().unwrap().ask(&Call::get("/customers")).await.unwrap();
        let ids: Vec<&str> = customers["data"].as_array().unwrap().iter().map(|customer| customer["id"].as_str().unwrap()).collect();
        assert_eq!(ids, [shop.stripe_customer(organization).await]);
    }
}

/// [B-64] [B-68] The answer to the first try was lost, an error is played back for as long as Stripe knows its key, and what was made cannot be
/// looked for.
#[tokio::test]
async fn an_organization_whose_customer_is_made_late_has_one_customer_all_the_same() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    let unseen = Fault { count: 10_000, ..Fault::next(FaultKind::ErrorBeforeEffect, "GET", "/v1/customers") };
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(FaultKind::ErrorAfterEffect, "POST", "/v1/customers"), unseen]);
    let lost = shop.pack(&client, "small").await;
    assert!(lost.status.is_server_error(), "{}", lost.status);
    shop.pass(Duration::from_hours(30));
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let stripe = shop.state.stripe.as_ref().unwrap();
    let customers = stripe.ask(&Call::get("/customers")).await.unwrap();
    let ids: Vec<&str> = customers["data"].as_array().unwrap().iter().map(|customer| customer["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [shop.stripe_customer(organization).await]);
    shop.assert_clean().await;
}

/// [B-63]
#[tokio::test]
async fn a_page_whose_answer_was_lost_is_the_same_page_when_it_is_asked_for_again() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.stripe.turn_knobs(|knobs| {
        knobs.faults = vec![Fault { count: 20, ..Fault::next(FaultKind::RateLimited, "POST", "/v1/checkout/sessions") }];
    });
    let answer = shop.pack(&client, "small").await.expect(503);
    assert_eq!(answer.header("retry-after"), "1");
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    let page = shop.pack(&client, "small").await.expect(201);
    assert_eq!(shop.app.count("select count(*) from checkouts").await, 1);
    shop.pay(&page);
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
}

/// [B-67] A hundred want an answer at once: some have it within a second or so, the others are told at once that they have none, and what nobody
/// waits for is done meanwhile and not after them.
#[tokio::test]
async fn those_who_wait_for_an_answer_leave_turns_to_what_nobody_waits_for_however_many_they_are() {
    let stripe = StripeSimulator::start(Options::default()).await.unwrap();
    let transport = Transport::new(&stripe.url, "sk_test_x".to_owned().into(), 20, Random::system()).unwrap();
    let (call, ended) = (Call::get("/customers"), Mutex::new(Vec::new()));
    let waiting = (0..100).map(|_| async {
        let answer = transport.ask_patiently(&call).await;
        ended.lock().unwrap().push("somebody waits");
        answer
    });
    let others = (0..5).map(|_| async {
        transport.ask(&call).await.unwrap();
        ended.lock().unwrap().push("nobody waits");
    });
    let (answers, _) = tokio::join!(join_all(waiting), join_all(others));
    // Those whose turn comes within a second, one each tenth; a machine that is busy at the beginning lets in some more.
    let answered = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((11..=20).contains(&answered), "{answered}");
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(TransportError::Late))), "{answers:?}");
    let ended = ended.into_inner().unwrap();
    assert!(ended[..80].iter().all(|who| *who == "somebody waits"), "who has no turn was not told so at once: {ended:?}");
    assert_eq!(ended.last(), Some(&"somebody waits"), "what nobody waits for came last");
}

/// A new account behind the same address, as after a simulator that forgot everything: who buys again is a new customer there.
#[tokio::test]
async fn what_is_gone_at_stripe_is_made_anew() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    let first = shop.pack(&client, "small").await.expect(201);
    let customer = shop.stripe_customer(organization).await;
    let nothing = "update checkouts set session_id = 'cs_test_gone'; update stripe_customers set customer_id = 'cus_gone'";
    shop.app.as_owner(nothing).await;
    let second = shop.pack(&client, "small").await.expect(201);
    assert_ne!(second.string("url"), first.string("url"));
    assert_ne!(shop.stripe_customer(organization).await, customer);
    shop.pay(&second);
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
}

#[tokio::test]
async fn a_key_of_live_mode_does_not_start_in_test_mode_nor_the_reverse() {
    let shop = Shop::open().await;
    for (key, livemode) in [("sk_live_x", false), ("sk_test_x", true), ("whsec_x", false)] {
        let mut config = shop.app.config.clone();
        config.stripe.secret_key = Some(key.to_owned().into());
        config.stripe.livemode = livemode;
        let (pool, redis) = (shop.app.database.pool.clone(), shop.app.redis.redis.clone());
        let state = billing_service::state::AppState::new(config, pool, redis, shop.app.clock.clone(), shop.app.random.clone());
        assert!(state.unwrap_err().to_string().contains("STRIPE_SECRET_KEY"), "{key}");
    }
}
