//! What happens once happens once, though 64 want it at the same moment.

use std::time::Duration;

use billing_service::admin::SCOPE_WRITE;
use billing_service::error::Error;
use billing_service::sales::{self, Reversal};
use chassis::in_transaction;
use futures::future::join_all;
use serde_json::{Value, json};
use testkit::http::{Answer, TestClient};

use super::shop::{CATALOG, Shop};

const CALLERS: usize = 64;
const MONTH: Duration = Duration::from_hours(32 * 24);

/// Somebody with credit that was bought, and its payment.
async fn with_pack(shop: &Shop) -> (TestClient, String) {
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    (client, shop.payment("payment_intent.succeeded"))
}

/// The looks of so many workers at one dispute, or at one refund, as Stripe has it.
fn looks(id: &str, payment: &str, status: &str, first: i64) -> Vec<Reversal> {
    let look = |fetched| Reversal {
        id: id.to_owned(),
        payment_intent: payment.to_owned(),
        amount_minor: 1_000,
        received_minor: None,
        status: status.to_owned(),
        fetched,
    };
    (first..).take(CALLERS).map(look).collect()
}

async fn change(client: &TestClient, change: &Value) -> Answer {
    let living = client.get("/v1/subscription").await.expect(200).json;
    client.post("/v1/subscription/changes", &json!({"subscription_id": living["data"][0]["id"], "change": change})).await
}

/// One did it, and all others were refused for one reason.
fn assert_one(answers: &[Answer], refusal: &str) {
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!((refused.status.as_u16(), refused.string("code").as_str()), (409, refusal), "{}", refused.text);
    }
}

/// [B-48]
#[tokio::test]
async fn of_64_who_tell_of_a_dispute_at_once_one_takes_its_money_and_of_64_who_tell_of_its_end_one_gives_it_back() {
    let shop = Shop::open().await;
    let (client, payment) = with_pack(&shop).await;
    let tell = async |status: &str, first: i64| {
        let told = looks("dp_1", &payment, status, first);
        let told = told.iter().map(async |look| {
            let done: Result<(), Error> =
                in_transaction!(shop.state.pool, |transaction| { sales::disputed(&shop.state, transaction, look, None).await });
            done.unwrap();
        });
        join_all(told).await;
    };
    tell("needs_response", 1_000).await;
    assert_eq!((shop.app.balance(&client).await, shop.app.house("disputes").await), ((0, 0), 10_000_000));
    tell("won", 2_000).await;
    assert_eq!((shop.app.balance(&client).await, shop.app.house("disputes").await), ((10_000_000, 0), 0));
    let posted = "select count(*) from ledger_transactions where kind in ('dispute_opened', 'dispute_won')";
    assert_eq!(shop.app.count(posted).await, 2);
    shop.app.assert_clean().await;
}

/// [B-48]
#[tokio::test]
async fn of_64_who_tell_of_a_refund_of_stripes_at_once_one_takes_its_credit_back() {
    let shop = Shop::open().await;
    let (client, payment) = with_pack(&shop).await;
    join_all(looks("re_1", &payment, "succeeded", 1_000).iter().map(async |look| {
        let done: Result<(), Error> =
            in_transaction!(shop.state.pool, |transaction| { sales::refunded(&shop.state, transaction, look).await });
        done.unwrap();
    }))
    .await;
    assert_eq!((shop.app.balance(&client).await, shop.app.house("stripe_clearing").await), ((0, 0), 0));
    assert_eq!(shop.app.count("select count(*) from ledger_transactions where kind = 'refund'").await, 1);
    shop.app.assert_clean().await;
}

/// [B-22]
#[tokio::test]
async fn of_64_who_replay_an_event_at_once_one_brings_it_back_and_it_has_its_effect_once() {
    let shop = Shop::open().await;
    shop.settle().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let news = shop.news();
    let paid = news.iter().find(|event| event["type"] == "checkout.session.completed").unwrap();
    let aside = "insert into stripe_events (event_id, kind, livemode, payload, state, created_at, received_at, next_attempt_at)
                 values ($1, 'checkout.session.completed', false, $2, 'parked', $3, $3, $3)";
    let aside = sqlx::query(aside).bind(paid["id"].as_str()).bind(paid).bind(shop.app.clock.now());
    aside.execute(&shop.app.database.owner).await.unwrap();
    let console = shop.app.service(SCOPE_WRITE);
    let which = json!({"by": {"actor": "grace", "reason": "mended"}, "events": {"event_id": paid["id"]}});
    let replayed = join_all((0..CALLERS).map(|_| console.post("/v1/admin/stripe/replay", &which))).await;
    let replayed: Vec<Value> =
        replayed.into_iter().flat_map(|answer| answer.expect(200).json["event_ids"].as_array().unwrap().clone()).collect();
    assert_eq!(replayed, [paid["id"].clone()]);
    shop.handled().await;
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
    assert_eq!(shop.app.count("select count(*) from audit_log where action = 'stripe.replay'").await, 1);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B26]
#[tokio::test]
async fn of_64_who_apply_a_coupon_at_once_one_does_and_it_takes_off_one_charge() {
    let catalog = CATALOG.replace("percent_off: 100", "percent_off: 50");
    let shop = Shop::selling(&catalog, |_| {}).await;
    let (_, client) = shop.customer();
    shop.pay(&shop.plan(&client, "plain").await.expect(201));
    shop.settle().await;
    let coupon = json!({"kind": "coupon", "coupon": "all"});
    let answers = join_all((0..CALLERS).map(|_| change(&client, &coupon))).await;
    assert_one(&answers, "coupon_redeemed");
    assert_eq!(shop.app.count("select count(*) from coupon_redemptions").await, 1);
    shop.pass(MONTH);
    shop.renewed(1).await;
    assert_eq!(shop.at_stripe(), 700 + 350);
    shop.pass(MONTH);
    shop.renewed(2).await;
    assert_eq!(shop.at_stripe(), 700 + 350 + 700);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-72] [B-77]
#[tokio::test]
async fn of_64_who_upgrade_at_once_one_does_and_its_difference_is_charged_once() {
    let shop = Shop::selling(&CATALOG.replace("    trial_days: 14\n", ""), |_| {}).await;
    let (_, client) = shop.customer();
    shop.pay(&shop.plan(&client, "pro").await.expect(201));
    shop.settle().await;
    let upgrade = json!({"kind": "plan", "plan": "team", "interval": "month", "seats": 1});
    let answers = join_all((0..CALLERS).map(|_| change(&client, &upgrade))).await;
    assert_one(&answers, "no_change");
    shop.settle().await;
    assert_eq!((shop.at_stripe(), shop.app.balance(&client).await), (10_000, (60_000_000, 0)));
    assert_eq!(shop.app.count("select count(*) from subscription_charges").await, 2);
    assert_eq!(shop.app.count("select count(*) from subscription_grants").await, 1);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}
