//! Facts that leave and facts that come.

use chassis::outbox::{NewEvent, Relay, enqueue};
use chassis::{Clock, Random, inbox};
use futures::future::join_all;
use serde_json::json;
use sqlx::PgPool;
use testkit::postgres::database;
use testkit::{TestDatabase, TestRedis};

use super::MIGRATIONS;

const STREAM: &str = "events";

struct World {
    database: TestDatabase,
    redis: TestRedis,
    relay: Relay,
}

async fn world() -> World {
    let (database, redis) = (database(MIGRATIONS).await, TestRedis::start().await);
    let relay = Relay::new(database.pool.clone(), redis.redis.clone(), STREAM, Clock::system());
    World { database, redis, relay }
}

/// Writes facts with these numbers in one transaction.
async fn write(pool: &PgPool, numbers: std::ops::Range<u64>, commit: bool) {
    let (clock, random) = (Clock::system(), Random::system());
    let mut transaction = pool.begin().await.unwrap();
    for number in numbers {
        let payload = json!({"number": number});
        let event = NewEvent { id: random.uuid_v7(&clock), kind: "note.written", organization_id: None, payload, occurred_at: clock.now() };
        enqueue(&mut transaction, &event).await.unwrap();
    }
    if commit {
        transaction.commit().await.unwrap();
    }
}

/// The numbers on the stream, in its order.
async fn published(redis: &TestRedis) -> Vec<u64> {
    let reply: redis::streams::StreamRangeReply =
        redis::cmd("XRANGE").arg(STREAM).arg("-").arg("+").query_async(&mut redis.redis.connection()).await.unwrap();
    let payloads = reply.ids.iter().map(|entry| entry.get::<String>("payload").unwrap());
    payloads.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap()["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn what_was_rolled_back_is_never_published_and_the_rest_in_its_order() {
    let world = world().await;
    write(&world.database.pool, 0..150, true).await;
    write(&world.database.pool, 150..160, false).await;
    write(&world.database.pool, 160..170, true).await;
    while world.relay.publish_batch().await.unwrap() > 0 {}
    assert_eq!(published(&world.redis).await, (0..150).chain(160..170).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_many_relays_one_publishes_and_nothing_is_published_twice() {
    let world = world().await;
    write(&world.database.pool, 0..90, true).await;
    let counts = join_all((0..8).map(|_| world.relay.publish_batch())).await;
    let sum: i64 = counts.into_iter().map(Result::unwrap).sum();
    assert_eq!(sum, 90);
    assert_eq!(published(&world.redis).await, (0..90).collect::<Vec<_>>());
}

#[tokio::test]
async fn while_redis_is_away_facts_wait_and_afterwards_they_all_come() {
    let mut world = world().await;
    world.redis.kill();
    write(&world.database.pool, 0..3, true).await;
    assert!(world.relay.publish_batch().await.is_err());
    world.redis.restart().await.unwrap();
    testkit::eventually("the facts", || async { world.relay.publish_batch().await.ok().filter(|count| *count == 3) }).await;
    // At least once: what was published before the connection broke may stand there twice, in order.
    let mut numbers = published(&world.redis).await;
    numbers.dedup();
    assert_eq!(numbers, [0, 1, 2]);
}

/// [B-81]
#[tokio::test]
async fn a_relay_that_is_stopped_publishes_what_was_committed_before() {
    let world = world().await;
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    write(&world.database.pool, 0..2, true).await;
    world.relay.run(&stop).await;
    assert_eq!(published(&world.redis).await, [0, 1]);
}

/// [B-10] [B-14]
#[tokio::test]
async fn of_many_deliveries_of_one_event_one_has_its_effect_and_a_rollback_frees_it() {
    let world = world().await;
    let now = Clock::system().now();
    let deliver = |id: &'static str, commit: bool| {
        let pool = world.database.pool.clone();
        async move {
            let mut transaction = pool.begin().await.unwrap();
            let first = inbox::claim(&mut transaction, "stripe", id, now).await.unwrap();
            if commit {
                transaction.commit().await.unwrap();
            }
            first
        }
    };
    assert!(deliver("evt_1", false).await);
    let first = join_all((0..64).map(|_| deliver("evt_1", true))).await.into_iter().filter(|first| *first).count();
    assert_eq!(first, 1);
    assert!(deliver("evt_2", true).await, "another event is another event");
}
