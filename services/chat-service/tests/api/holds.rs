//! Holds of calls that were never made.

use contracts::usage::STREAM;
use testkit::eventually;

use crate::harness::{Chat, streamed, whole};

/// [trap 3] billing-service placed the hold, and its answer was lost as often as it was asked for.
#[tokio::test]
async fn a_hold_whose_answer_was_lost_is_given_back_and_the_provider_is_not_asked() {
    let chat = Chat::start().await;
    for (calls, body) in [(1, whole()), (2, streamed())] {
        // The client of billing-service asks twice by itself.
        chat.neighbors.lose_answers(2);
        chat.ask(&body).await.expect(503);
        eventually("the hold is given back", || async { (chat.neighbors.voided().len() == calls).then_some(()) }).await;
    }
    let holds: Vec<_> = chat.neighbors.reservations().into_iter().map(|(_, id)| id).collect();
    assert_eq!(chat.neighbors.voided(), holds);
    assert!(chat.upstream.seen().is_empty());
    let redis = chat.stop().await;
    let length: u64 = redis::cmd("XLEN").arg(STREAM).query_async(&mut redis.redis.connection()).await.expect("Redis");
    assert_eq!(length, 0, "there is nothing to settle");
}

/// [trap 3]
#[tokio::test]
async fn a_hold_is_given_back_however_long_billing_is_away() {
    let chat = Chat::start().await;
    chat.neighbors.lose_answers(5);
    chat.ask(&whole()).await.expect(503);
    eventually("the hold is given back", || async { (!chat.neighbors.voided().is_empty()).then_some(()) }).await;
    assert_eq!(chat.neighbors.reservations().len(), 1, "it is asked for by the same request");
}

/// Also when there is no time left to wait.
#[tokio::test]
async fn a_stop_gives_holds_back_that_may_exist() {
    let chat = Chat::start().await;
    chat.neighbors.lose_answers(2);
    chat.ask(&whole()).await.expect(503);
    let neighbors = chat.neighbors.clone();
    chat.stop().await;
    assert_eq!(neighbors.voided().len(), 1);
}

/// A wallet that does not reach has no hold: there is nothing to give back.
#[tokio::test]
async fn what_billing_refuses_is_not_asked_for_again() {
    let chat = Chat::start().await;
    chat.neighbors.billing_answers(402);
    chat.ask(&whole()).await.expect(402);
    chat.neighbors.billing_answers(0);
    let neighbors = chat.neighbors.clone();
    chat.stop().await;
    assert!(neighbors.reservations().is_empty() && neighbors.voided().is_empty());
}
