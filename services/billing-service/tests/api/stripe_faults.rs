//! What goes wrong between us and Stripe, and costs nothing.

use std::sync::Mutex;
use std::time::Duration;

use billing_service::error::Error;
use billing_service::state::AppState;
use billing_service::stripe::call::Call;
use billing_service::stripe::facts::{self, Family, Fetched};
use billing_service::stripe::transport::{Transport, TransportError};
use billing_service::stripe::worker;
use chassis::{Random, in_transaction};
use chrono::TimeDelta;
use futures::future::join_all;
use serde_json::{Value, json};
use stripe_simulator::{Fault, FaultKind, Options, StripeSimulator};
use testkit::eventually;
use testkit::http::TestClient;

use super::bent_stripe::Bent;
use super::shop::Shop;
use super::wallet::run;

const MONTH: Duration = Duration::from_hours(32 * 24);
/// Events that were tried once, in vain, and wait for their next try: who takes one puts it off for 25 seconds at least, and who fails for one and
/// a quarter at most.
const WAITING: &str = "select count(*) from stripe_events where state = 'received' and attempts = 1
    and next_attempt_at between received_at + interval '1 second' and received_at + interval '2 seconds'";

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

/// [B-20] [B28]
#[tokio::test]
async fn an_event_whose_object_has_no_id_is_set_aside_at_once_and_acknowledged() {
    let shop = Shop::open().await;
    let event = json!({"id": "evt_odd", "object": "event", "type": "invoice.paid", "livemode": false, "created": 1, "api_version": null, "data": {"object": {}}});
    shop.deliver(&event).await;
    eventually("it is set aside", || async {
        (shop.app.count("select count(*) from stripe_events where state = 'parked'").await == 1).then_some(())
    })
    .await;
}

/// The event that a pack was paid on a page of which Stripe says that it does not have it, after the first look; and who paid.
async fn paid_on_a_page_that_is_not_there() -> (Shop, Bent, TestClient, Value) {
    let bent = Bent::default();
    let before = bent.clone();
    let shop = Shop::with(|config| config.stripe.api_base = before.before(config.stripe.api_base.clone())).await;
    let (_, client) = shop.customer();
    let page = shop.pack(&client, "small").await.expect(201);
    shop.pay(&page);
    bent.hide(&Shop::session(&page));
    let paid = told_of_the_payment(&shop).await;
    eventually("the first look fails", || async { (shop.app.count(WAITING).await == 1).then_some(()) }).await;
    (shop, bent, client, paid)
}

/// Of all that Stripe tells, that a page was paid is delivered.
async fn told_of_the_payment(shop: &Shop) -> Value {
    let paid = shop.news().into_iter().find(|event| event["type"] == "checkout.session.completed").unwrap();
    shop.deliver(&paid).await;
    paid
}

/// The credit of the pack is there, once, however often Stripe tells of it.
async fn assert_credited_once(shop: &Shop, client: &TestClient, paid: &Value) {
    shop.deliver(paid).await;
    shop.settle().await;
    assert_eq!(shop.app.balance(client).await, (10_000_000, 0));
    assert_eq!(shop.app.count("select count(*) from stripe_payments").await, 1);
    assert_eq!(
        shop.app.count("select count(*) from stripe_events where state = 'handled' and kind = 'checkout.session.completed'").await,
        1
    );
    shop.assert_clean().await;
}

/// [B-20] [B-22] As while the service has the key of another account.
#[tokio::test]
async fn what_stripe_never_deletes_and_does_not_have_is_looked_for_until_it_has_it() {
    let (shop, bent, client, paid) = paid_on_a_page_that_is_not_there().await;
    assert_eq!(shop.app.balance(&client).await, (0, 0));
    bent.straighten();
    shop.handled_in_time().await;
    assert_credited_once(&shop, &client, &paid).await;
    shop.assert_reconciled().await;
}

/// [B-20] [B-22]
#[tokio::test]
async fn what_stripe_never_deletes_and_does_not_have_for_half_a_day_is_set_aside_and_has_its_effect_when_it_is_replayed() {
    let (shop, bent, client, paid) = paid_on_a_page_that_is_not_there().await;
    let counted = shop.app.metric("billing_stripe_events_parked_total").await;
    eventually("the end of its tries", || async {
        shop.app.turn.advance(Duration::from_hours(2));
        worker::handle_one(&shop.state).await.unwrap();
        (shop.app.count("select count(*) from stripe_events where state = 'parked' and attempts >= 20").await == 1).then_some(())
    })
    .await;
    eventually("people are told", || async { (shop.app.metric("billing_stripe_events_parked_total").await > counted).then_some(()) }).await;
    assert_eq!(shop.app.balance(&client).await, (0, 0));
    bent.straighten();
    let replay = ["stripe", "replay", paid["id"].as_str().unwrap(), "--actor", "ada", "--reason", "the key was of another account"];
    run(&shop.app, &replay).await.unwrap();
    shop.handled().await;
    assert_credited_once(&shop, &client, &paid).await;
}

/// [B-20] A customer may have been deleted, and a draft of an invoice. Of the last invoice there are two events at once, which one look answers:
/// one of them is about what is final.
#[tokio::test]
async fn what_stripe_may_have_deleted_means_nothing_when_it_is_gone_and_all_else_is_looked_for_again() {
    let shop = Shop::open().await;
    shop.app
        .as_owner(
            "insert into stripe_events (event_id, kind, livemode, payload, state, created_at, received_at, next_attempt_at)
             select 'evt_' || n, kind, false, jsonb_build_object('data', jsonb_build_object('object', jsonb_build_object('id', object))), 'received',
               '2030-01-01 00:00Z', '2030-01-01 00:00Z', '2030-01-01 00:00Z'
             from (values (1, 'customer.updated', 'cus_gone'), (2, 'invoice.created', 'in_draft'), (3, 'invoice.updated', 'in_draft'),
               (4, 'credit_note.created', 'cn_kept'), (5, 'refund.created', 're_kept'), (6, 'charge.dispute.created', 'dp_kept'),
               (7, 'invoice.paid', 'in_paid'), (8, 'invoice.created', 'in_kept'), (9, 'invoice.finalized', 'in_kept')) told (n, kind, object)",
        )
        .await;
    let ended = "select count(*) from stripe_events where state <> 'received'";
    eventually("each is looked for", || async { (shop.app.count(WAITING).await == 6 && shop.app.count(ended).await == 3).then_some(()) })
        .await;
    let ignored = "select event_id from stripe_events where state = 'ignored' order by event_id";
    let ignored: Vec<String> = sqlx::query_scalar(ignored).fetch_all(&shop.app.database.owner).await.unwrap();
    assert_eq!(ignored, ["evt_1", "evt_2", "evt_3"]);
}

/// [B-14] The effect of a payment is there, and then the mark of its event fails: neither is there without the other.
#[tokio::test]
async fn an_effect_whose_event_cannot_be_marked_is_undone_and_comes_once_when_it_can() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.app
        .as_owner(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'it cannot be marked'; end $$;
             create trigger refuse before update on stripe_events for each row when (new.state = 'handled') execute function refuse()",
        )
        .await;
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let paid = told_of_the_payment(&shop).await;
    eventually("the mark fails", || async { (shop.app.count(WAITING).await == 1).then_some(()) }).await;
    assert_eq!(shop.app.balance(&client).await, (0, 0));
    assert_eq!(shop.app.count("select count(*) from stripe_payments").await, 0);
    assert_eq!(shop.app.count("select count(*) from checkouts where state = 'paid'").await, 0);
    shop.app.as_owner("drop trigger refuse on stripe_events").await;
    shop.handled_in_time().await;
    assert_eq!(shop.app.count("select count(*) from checkouts where state = 'paid'").await, 1);
    assert_credited_once(&shop, &client, &paid).await;
    shop.assert_reconciled().await;
}

/// [B-17] [B-21]
#[tokio::test]
async fn an_event_of_another_version_is_counted_and_its_object_fetched_in_ours() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let before = shop.app.metric("billing_stripe_events_of_other_version_total").await;
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    for mut event in shop.news() {
        event["api_version"] = "2019-02-19".into();
        // As an old shape would have it: nothing but the id is where we look.
        let id = event["data"]["object"]["id"].clone();
        event["data"]["object"] = json!({"id": id});
        shop.deliver(&event).await;
    }
    shop.handled().await;
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
    assert!(shop.app.metric("billing_stripe_events_of_other_version_total").await > before);
}

/// [B-17] Two looks at an invoice whose answers arrive in the other order.
#[tokio::test]
async fn a_look_that_began_before_another_and_ends_after_it_does_not_undo_what_that_saw() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    let invoice: String = sqlx::query_scalar("select invoice_id from stripe_invoices").fetch_one(&shop.app.database.owner).await.unwrap();
    let state = shop.app.state();
    let look = async || facts::fetch(&state, state.stripe.as_ref().unwrap(), Family::Invoice, &invoice).await.unwrap().unwrap();
    let (mut older, newer) = (look().await, look().await);
    for (field, value) in [("status", json!("open")), ("amount_paid", json!(0)), ("attempt_count", json!(0))] {
        older.object[field] = value;
    }
    assert!(older.number < newer.number);
    let paid = "select count(*) from stripe_invoices where status = 'paid' and paid_micros > 0";
    for seen in [&newer, &older, &newer] {
        apply(&state, seen).await;
        assert_eq!(shop.app.count(paid).await, 1);
    }
    older.number = newer.number + 1;
    apply(&state, &older).await;
    assert_eq!(shop.app.count(paid).await, 0, "the test shows nothing: the object that it hands over has no effect");
}

/// A look has its effect.
async fn apply(state: &AppState, seen: &Fetched) {
    let applied: Result<bool, Error> = in_transaction!(state.pool, |transaction| {
        let turn = facts::turn::take(transaction, &[], Some(seen)).await?;
        facts::apply(state, transaction, seen, &turn).await
    });
    assert!(applied.unwrap());
}

/// [B-17] [B-18] [B-48] Two looks at a refund whose answers arrive in the other order: the earlier one neither takes back what the later
/// one knows to have failed, nor takes it back twice, nor tells people that it failed.
#[tokio::test]
async fn a_refund_goes_by_the_look_that_began_last_whichever_has_its_effect_first() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let payment = shop.payment("payment_intent.succeeded");
    let refund = shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", "300")]).await;
    let (state, refund) = (shop.app.state(), refund["id"].as_str().unwrap());
    let look = async |status: &str| {
        let mut seen = facts::fetch(&state, state.stripe.as_ref().unwrap(), Family::Refund, refund).await.unwrap().unwrap();
        seen.object["status"] = json!(status);
        seen
    };
    let (pending, failed) = (look("pending").await, look("failed").await);
    for seen in [&failed, &pending, &failed] {
        apply(&state, seen).await;
        assert_eq!(shop.app.balance(&client).await, (10_000_000, 0), "what had failed was taken back");
        assert_eq!(shop.app.count("select count(*) from stripe_reversals where status = 'failed' and not posted").await, 1);
    }
    // Nobody else of these tests has a refund fail.
    let told = shop.app.metric("billing_stripe_refunds_failed_total").await;
    let (pending, failed, succeeded) = (look("pending").await, look("failed").await, look("succeeded").await);
    for seen in [&succeeded, &failed, &pending, &succeeded] {
        apply(&state, seen).await;
        assert_eq!(shop.app.balance(&client).await, (7_000_000, 0), "once, and to stay");
        assert_eq!(shop.app.count("select count(*) from stripe_reversals where status = 'succeeded' and posted").await, 1);
    }
    assert!((shop.app.metric("billing_stripe_refunds_failed_total").await - told).abs() < 0.5, "people were told of what did not fail");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
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
