//! The cached keys of tokens, while auth-service is well, fails, or hangs [I-46, I-50].

use std::sync::Arc;
use std::time::Duration;

use chassis::clock::ManualClock;
use identity::{KeySource, LookupUnavailable, RemoteKeys};
use tokio::task::JoinSet;

use crate::auth_server::{AuthServer, Mode, public_key};

const PATIENCE: Duration = Duration::from_secs(20);

type Answer = Result<Option<Vec<u8>>, LookupUnavailable>;

async fn start(timeout: Duration) -> (AuthServer, Arc<RemoteKeys>, ManualClock) {
    let (clock, turn) = testkit::clock();
    let server = AuthServer::start(timeout).await;
    let keys = RemoteKeys::with_clock(server.client(), clock);
    (server, Arc::new(keys), turn)
}

/// So many callers at once, all with the same `kid`.
fn callers(keys: &Arc<RemoteKeys>, kid: &'static str, number: usize) -> JoinSet<Answer> {
    (0..number)
        .map(|_| {
            let keys = Arc::clone(keys);
            async move { keys.key(kid).await }
        })
        .collect()
}

#[tokio::test]
async fn one_request_is_made_for_all_who_wait() {
    let (server, keys, _) = start(PATIENCE).await;
    server.turn(Mode::Hangs);
    let waiting = callers(&keys, "k1", 50);
    server.reach(1).await;
    server.turn(Mode::Answers);
    assert!(waiting.join_all().await.iter().all(|answer| *answer == Ok(Some(public_key()))));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_costs_all_callers_together_one_time_limit_and_then_nothing_for_a_second() {
    let (server, keys, turn) = start(Duration::from_millis(200)).await;
    server.turn(Mode::Hangs);
    assert!(callers(&keys, "k1", 50).join_all().await.iter().all(Result::is_err));
    turn.advance(Duration::from_millis(999));
    assert!(callers(&keys, "k1", 50).join_all().await.iter().all(Result::is_err));
    assert_eq!(server.requests(), 1, "asked again within a second");
    turn.advance(Duration::from_millis(1));
    server.turn(Mode::Answers);
    assert_eq!(keys.key("k1").await, Ok(Some(public_key())));
}

#[tokio::test]
async fn known_keys_are_renewed_before_their_end_and_nobody_waits_for_that() {
    let (server, keys, turn) = start(PATIENCE).await;
    keys.key("k1").await.unwrap();
    turn.advance(Duration::from_secs(239));
    keys.key("k1").await.unwrap();
    assert_eq!(server.requests(), 1);
    turn.advance(Duration::from_secs(1));
    server.turn(Mode::Hangs);
    assert!(callers(&keys, "k1", 50).join_all().await.iter().all(|answer| *answer == Ok(Some(public_key()))));
    server.reach(2).await;
}

#[tokio::test]
async fn known_keys_serve_on_while_nobody_can_be_asked() {
    let (server, keys, turn) = start(PATIENCE).await;
    keys.key("k1").await.unwrap();
    server.turn(Mode::Fails);
    turn.advance(Duration::from_mins(5));
    assert_eq!(keys.key("k1").await, Ok(Some(public_key())));
    assert_eq!(server.requests(), 2, "stale keys were believed without asking");
    // It is known to be away: from now on nobody waits to hear that again.
    server.turn(Mode::Hangs);
    turn.advance(Duration::from_hours(1));
    assert!(callers(&keys, "k1", 50).join_all().await.iter().all(|answer| *answer == Ok(Some(public_key()))));
    server.reach(3).await;
}

#[tokio::test]
async fn a_key_that_is_no_longer_published_is_refused_when_the_cache_time_is_over() {
    let (server, keys, turn) = start(PATIENCE).await;
    keys.key("k1").await.unwrap();
    server.publish(&["k2"]);
    turn.advance(Duration::from_mins(5));
    assert_eq!(keys.key("k1").await, Ok(None));
    assert_eq!(keys.key("k2").await, Ok(Some(public_key())));
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_every_five_seconds_and_cannot_be_judged_while_nobody_can_be_asked() {
    let (server, keys, turn) = start(Duration::from_millis(200)).await;
    keys.key("k1").await.unwrap();
    assert!(callers(&keys, "k2", 50).join_all().await.iter().all(|answer| *answer == Ok(None)));
    assert_eq!(server.requests(), 1, "garbage became load");
    turn.advance(Duration::from_secs(5));
    server.turn(Mode::Hangs);
    assert!(callers(&keys, "k2", 50).join_all().await.iter().all(Result::is_err));
    assert!(callers(&keys, "k2", 50).join_all().await.iter().all(Result::is_err));
    assert_eq!(server.requests(), 2, "asked again within a second");
    assert_eq!(keys.key("k1").await, Ok(Some(public_key())));
    server.publish(&["k1", "k2"]);
    server.turn(Mode::Answers);
    turn.advance(Duration::from_secs(1));
    assert_eq!(keys.key("k2").await, Ok(Some(public_key())));
}
