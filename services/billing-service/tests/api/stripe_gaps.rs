//! Events that Stripe never delivered [B-23].

use std::time::Duration;

use billing_service::stripe::gaps::{self, Round};
use identity::Scopes;

use super::shop::Shop;

/// What somebody who buys may do.
const BUYS: [&str; 2] = ["billing:read", "billing:write"];

const LATER: Duration = Duration::from_mins(5);

/// Looks through Stripe's list once, some minutes later, and waits for the effects of what it found.
async fn look(shop: &Shop) -> Round {
    shop.pass(LATER);
    let state = shop.app.state();
    let round = gaps::round(&state, state.stripe.as_ref().unwrap(), 1).await.unwrap();
    shop.handled().await;
    round
}

/// [B-23] Not one webhook arrives, and all has its effect: a purchase, a plan, a refund.
#[tokio::test]
async fn with_every_webhook_lost_the_effects_come_all_the_same_and_once() {
    let shop = Shop::open().await;
    let (_, client) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.pack(&client, "large").await.expect(201));
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    let first = look(&shop).await;
    assert!(first.done && first.found >= 3, "{first:?}");
    assert_eq!(shop.app.balance(&client).await, (170_000_000, 0));
    shop.send().await;
    let payment: String =
        sqlx::query_scalar("select payment_intent_id from stripe_payments where amount_micros = 100000000 and credit_micros = 110000000")
            .fetch_one(&shop.app.database.owner)
            .await
            .unwrap();
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment)]).await;
    look(&shop).await;
    assert_eq!(shop.app.balance(&client).await, (60_000_000, 0));
    shop.send().await;
    look(&shop).await;
    assert_eq!(look(&shop).await, Round { found: 0, done: true }, "what is known was found again");
    // And when they come after all, nothing happens twice.
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (60_000_000, 0));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-23] What was delivered is no gap, and what is on its way is left to its delivery.
#[tokio::test]
async fn what_was_delivered_or_is_on_its_way_is_not_found() {
    let shop = Shop::open().await;
    let (_, client) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let state = shop.app.state();
    let stripe = state.stripe.as_ref().unwrap();
    assert_eq!(gaps::round(&state, stripe, 1).await.unwrap(), Round { found: 0, done: true }, "it is a moment old");
    shop.settle().await;
    assert_eq!(look(&shop).await, Round { found: 0, done: true });
}

/// [B-23] A round looks at so many pages and no more, and the next one goes on behind them.
#[tokio::test]
async fn a_long_list_takes_several_rounds_and_each_begins_where_the_last_one_ended() {
    let shop = Shop::open().await;
    let (organization, client) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let customer = shop.stripe_customer(organization).await;
    // Each changes the customer: an event that is kept, newer than those of the purchase.
    for number in 0..105 {
        shop.dashboard(&format!("/v1/customers/{customer}"), &[("name", &format!("Ada {number}"))]).await;
    }
    let first = look(&shop).await;
    assert!(!first.done && (80..=100).contains(&first.found), "{first:?}");
    assert_eq!(shop.app.balance(&client).await, (0, 0), "the purchase is the oldest");
    let second = look(&shop).await;
    assert!(second.done && second.found < 50, "{second:?}");
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
}

/// [B-23] Nothing is asked for that Stripe has forgotten, and a walk whose place was forgotten ends there.
#[tokio::test]
async fn a_walk_whose_place_stripe_has_forgotten_ends_and_the_next_one_begins_anew() {
    let shop = Shop::open().await;
    shop.app.as_owner("update stripe_event_position set walk_until = '2029-12-01', walk_after = 'evt_forgotten'").await;
    assert_eq!(look(&shop).await, Round { found: 0, done: true });
    let (_, client) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    assert!(look(&shop).await.found > 0);
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
}

/// [B-23] What Postgres cannot keep in an event does not hold up the others.
#[tokio::test]
async fn an_event_with_a_nul_in_it_is_found_like_any_other() {
    let shop = Shop::open().await;
    let (organization, client) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let customer = shop.stripe_customer(organization).await;
    shop.dashboard(&format!("/v1/customers/{customer}"), &[("name", "Ada\0")]).await;
    assert!(look(&shop).await.done);
    assert_eq!(shop.app.count("select count(*) from stripe_events where payload::text like '%Ada\u{fffd}%'").await, 1);
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
}
