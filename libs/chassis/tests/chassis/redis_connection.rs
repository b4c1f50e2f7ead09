//! The connection to Redis.

use chassis::health::Readiness;
use chassis::redis::is_unavailable;
use testkit::TestRedis;

async fn ping(redis: &TestRedis) -> Result<String, redis::RedisError> {
    redis::cmd("PING").query_async(&mut redis.redis.connection()).await
}

#[tokio::test]
async fn a_server_that_hangs_is_an_answer_and_not_a_queue() {
    let redis = TestRedis::start().await;
    redis.pause();
    let error = ping(&redis).await.unwrap_err();
    assert!(is_unavailable(&error), "{error}");
    redis.resume();
    testkit::eventually("an answer", || async { ping(&redis).await.ok() }).await;
}

#[tokio::test]
async fn the_connection_finds_its_way_back_after_a_crash_and_the_service_is_ready_again() {
    let mut redis = TestRedis::start().await;
    let readiness = Readiness::default();
    redis.redis.watch(&readiness);
    assert!(readiness.check().await.ready);
    redis.kill();
    assert!(is_unavailable(&ping(&redis).await.unwrap_err()));
    assert!(!readiness.check().await.ready);
    redis.restart().await.unwrap();
    testkit::eventually("being ready again", || async { readiness.check().await.ready.then_some(()) }).await;
}
