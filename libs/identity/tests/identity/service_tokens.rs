//! Getting service tokens from an auth-service that is well, fails, or hangs [I-76].

use std::time::Duration;

use chassis::Random;
use chassis::clock::ManualClock;
use identity::{LookupUnavailable, ServiceTokens};
use tokio::task::JoinSet;

use crate::auth_server::{AuthServer, Mode};
use crate::forge::Key;

const PATIENCE: Duration = Duration::from_secs(20);

async fn start(timeout: Duration) -> (AuthServer, ServiceTokens, ManualClock) {
    let (clock, turn) = testkit::clock();
    let server = AuthServer::start(timeout).await;
    let key = Key::new().signing("chat-service");
    let tokens = ServiceTokens::new("chat-service", "https://auth.example.com", key, server.client(), clock, Random::system());
    (server, tokens, turn)
}

async fn get(tokens: &ServiceTokens) -> Result<String, LookupUnavailable> {
    tokens.get("auth-service", "api_keys:verify").await
}

/// So many callers at once.
fn callers(tokens: &ServiceTokens, number: usize) -> JoinSet<Result<String, LookupUnavailable>> {
    (0..number)
        .map(|_| {
            let tokens = tokens.clone();
            async move { get(&tokens).await }
        })
        .collect()
}

#[tokio::test]
async fn one_request_is_made_for_all_who_wait() {
    let (server, tokens, _) = start(PATIENCE).await;
    server.turn(Mode::Hangs);
    let waiting = callers(&tokens, 50);
    server.reach(1).await;
    server.turn(Mode::Answers);
    for answer in waiting.join_all().await {
        assert_eq!(answer.as_deref(), Ok("token 1"));
    }
    assert_eq!(get(&tokens).await.as_deref(), Ok("token 1"));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_costs_all_callers_together_one_time_limit_and_then_nothing_for_a_second() {
    let (server, tokens, turn) = start(Duration::from_millis(200)).await;
    server.turn(Mode::Hangs);
    assert!(callers(&tokens, 50).join_all().await.iter().all(Result::is_err));
    assert_eq!(server.requests(), 1);
    // The clock stands: the second is not over, however long this takes.
    turn.advance(Duration::from_millis(999));
    assert!(callers(&tokens, 50).join_all().await.iter().all(Result::is_err));
    assert_eq!(server.requests(), 1, "asked again within a second");
    turn.advance(Duration::from_millis(1));
    server.turn(Mode::Answers);
    assert_eq!(get(&tokens).await.as_deref(), Ok("token 2"));
}

#[tokio::test]
async fn a_held_token_serves_until_its_end_whatever_becomes_of_its_renewal() {
    let (server, tokens, turn) = start(PATIENCE).await;
    assert_eq!(get(&tokens).await.as_deref(), Ok("token 1"));
    turn.advance(Duration::from_secs(239));
    assert_eq!((get(&tokens).await.as_deref(), server.requests()), (Ok("token 1"), 1));
    turn.advance(Duration::from_secs(1));
    server.turn(Mode::Hangs);
    // Nobody waits for the renewal that has begun.
    for answer in callers(&tokens, 50).join_all().await {
        assert_eq!(answer.as_deref(), Ok("token 1"));
    }
    server.reach(2).await;
    server.turn(Mode::Fails);
    turn.advance(Duration::from_secs(54));
    assert_eq!(get(&tokens).await.as_deref(), Ok("token 1"));
    turn.advance(Duration::from_secs(1));
    assert_eq!(get(&tokens).await, Err(LookupUnavailable), "given although it ends on its way");
}

#[tokio::test]
async fn a_renewed_token_takes_the_place_of_the_held_one() {
    let (server, tokens, turn) = start(PATIENCE).await;
    get(&tokens).await.unwrap();
    turn.advance(Duration::from_secs(250));
    testkit::eventually("the renewed token", || async { (get(&tokens).await.unwrap() == "token 2").then_some(()) }).await;
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn who_gives_up_waiting_does_not_take_the_answer_from_the_others() {
    let (server, tokens, _) = start(PATIENCE).await;
    server.turn(Mode::Hangs);
    let mut first = callers(&tokens, 1);
    server.reach(1).await;
    let second = callers(&tokens, 1);
    first.shutdown().await;
    server.turn(Mode::Answers);
    assert_eq!(second.join_all().await[0].as_deref(), Ok("token 1"));
    assert_eq!(server.requests(), 1);
}
