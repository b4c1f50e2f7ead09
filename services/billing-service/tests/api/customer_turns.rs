//! What Stripe tells of one customer has its effect in turns.

use serde_json::Value;
use testkit::eventually;

use super::shop::Shop;

/// Who waits for his turn.
const WAITING: &str = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
    where d.datname = current_database() and l.locktype = 'advisory' and not l.granted";
const HANDLED: &str = "select count(*) from stripe_events where state <> 'received'";

fn newest<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    events.iter().rev().find(|event| event["type"] == kind).unwrap()
}

/// [B-24] The first of them is held up in the middle of its effect, by somebody who looks at its checkout.
#[tokio::test]
async fn different_events_of_one_customer_have_their_effects_one_after_the_other_and_hold_up_nobody_else() {
    let shop = Shop::open().await;
    let ((ada, client), (_, eve)) = (shop.customer(), shop.customer());
    shop.pay(&shop.pack(&client, "large").await.expect(201));
    shop.settle().await;
    let payment = shop.payment("payment_intent.succeeded");
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let first = shop.news();
    shop.pay(&shop.pack(&eve, "small").await.expect(201));
    let of_eve = shop.news();
    let customer = shop.stripe_customer(ada).await;
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", "1000")]).await;
    shop.stripe.open_dispute(&payment, None, "fraudulent").unwrap();
    shop.dashboard("/v1/invoices", &[("customer", &customer)]).await;
    shop.dashboard(&format!("/v1/customers/{customer}"), &[("name", "Ada")]).await;
    let others = shop.news();
    let handled = shop.app.count(HANDLED).await;

    let mut reader = shop.app.database.owner.begin().await.unwrap();
    let looked_at = "select from checkouts where organization_id = $1 and amount_micros = 10000000 for update";
    sqlx::query(looked_at).bind(ada.uuid()).execute(&mut *reader).await.unwrap();
    shop.deliver(newest(&first, "checkout.session.completed")).await;
    eventually("the first one is held up", || async {
        let held = "select count(*) from pg_stat_activity where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0";
        (shop.app.count(held).await == 1).then_some(())
    })
    .await;
    for kind in ["refund.created", "charge.dispute.created", "invoice.created", "customer.updated"] {
        shop.deliver(newest(&others, kind)).await;
    }
    eventually("the others wait for their turns", || async {
        assert_eq!(shop.app.count(HANDLED).await, handled, "one had its effect in the middle of another's");
        (shop.app.count(WAITING).await == 4).then_some(())
    })
    .await;
    shop.deliver(newest(&of_eve, "checkout.session.completed")).await;
    eventually("somebody else's has its effect", || async { (shop.app.count(HANDLED).await == handled + 1).then_some(()) }).await;
    assert_eq!(shop.app.balance(&eve).await, (10_000_000, 0));
    // One that looks whether it is its turn does not wait for that moment.
    eventually("the others wait still", || async { (shop.app.count(WAITING).await == 4).then_some(()) }).await;

    reader.rollback().await.unwrap();
    shop.handled().await;
    assert_eq!(shop.app.count(HANDLED).await, handled + 6);
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0), "the first is there, and the one before went back");
    assert_eq!(shop.app.count("select count(*) from stripe_reversals where posted").await, 2);
    shop.app.assert_clean().await;
}
