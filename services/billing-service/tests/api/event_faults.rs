//! Events whose objects are gone, cannot be read or were seen in another order: none is lost, and none has its effect twice.

use std::time::Duration;

use billing_service::error::Error;
use billing_service::state::AppState;
use billing_service::stripe::facts::{self, Family, Fetched};
use billing_service::stripe::worker;
use chassis::in_transaction;
use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::TestClient;

use super::bent_stripe::Bent;
use super::shop::Shop;
use super::wallet::run;

/// Events that were tried once, in vain, and wait for their next try: who takes one puts it off for 25 seconds at least, and who fails for one and
/// a quarter at most.
const WAITING: &str = "select count(*) from stripe_events where state = 'received' and attempts = 1
    and next_attempt_at between received_at + interval '1 second' and received_at + interval '2 seconds'";

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
             select 'evt_' || n, kind, false, jsonb_build_object('data', jsonb_build_object('object', jsonb_build_object('id', object, 'status', status))),
               'received', '2030-01-01 00:00Z', '2030-01-01 00:00Z', '2030-01-01 00:00Z'
             from (values (1, 'customer.updated', 'cus_gone', null), (2, 'invoice.created', 'in_draft', null), (3, 'invoice.updated', 'in_draft', 'draft'),
               (4, 'credit_note.created', 'cn_kept', 'issued'), (5, 'refund.created', 're_kept', 'succeeded'),
               (6, 'charge.dispute.created', 'dp_kept', 'needs_response'), (7, 'invoice.paid', 'in_paid', 'paid'),
               (8, 'invoice.created', 'in_kept', 'draft'), (9, 'invoice.finalized', 'in_kept', 'open'), (10, 'invoice.updated', 'in_open', 'open')
             ) told (n, kind, object, status)",
        )
        .await;
    let ended = "select count(*) from stripe_events where state <> 'received'";
    eventually("each is looked for", || async { (shop.app.count(WAITING).await == 7 && shop.app.count(ended).await == 3).then_some(()) })
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
    shop.pass(Duration::from_hours(32 * 24));
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
