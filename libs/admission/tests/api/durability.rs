//! What a power failure costs. With `appendfsync everysec` Redis may forget its last second, with `always` nothing that it confirmed.
//! Either way a request is at worst charged by an older checkpoint than its last, and never twice.

use admission::{End, Settlement};
use contracts::Shard;
use money::TokenUsage;

use crate::world::World;

/// The end of the log is lost, the processes live: they settle again what was not confirmed to be on the disk.
#[tokio::test]
async fn requests_that_redis_forgot_are_settled_once_and_their_money_is_not_there_twice() {
    let mut world = World::with(1000).await;
    let known = world.begin(300).await;
    let on_disk = world.redis.log_bytes();
    let forgotten = world.begin(200).await;
    world.settle(&known, 120).await;
    world.settle(&forgotten, 50).await;
    assert_eq!(world.remaining().await, 1000 - 170);
    world.redis.lose_power(on_disk);
    world.redis.restart().await.expect("Redis");
    assert_eq!((world.remaining().await, world.in_flight().await, world.appended().await.len()), (700, 1, 0), "a second is lost");
    for _ in 0..2 {
        world.settle(&known, 120).await;
        world.settle(&forgotten, 50).await;
    }
    assert_eq!((world.remaining().await, world.in_flight().await), (1000 - 170, 0));
    assert_eq!(world.appended().await, [(known.request_id, 120), (forgotten.request_id, 50)]);
}

/// The processes died with it: what is left is the checkpoint that reached the disk.
#[tokio::test]
async fn after_a_loss_of_everything_but_the_log_a_request_is_charged_by_its_last_checkpoint_on_the_disk() {
    let mut world = World::with(1000).await;
    let event = world.begin(300).await;
    world.admissions.checkpoint(world.organization, event.request_id, &TokenUsage::text(10, 1)).await.expect("Redis");
    let on_disk = world.redis.log_bytes();
    world.admissions.checkpoint(world.organization, event.request_id, &TokenUsage::text(10, 2)).await.expect("Redis");
    world.settle(&event, 120).await;
    world.redis.lose_power(on_disk);
    world.redis.restart().await.expect("Redis");
    let late = world.clock.now() + chrono::TimeDelta::minutes(6);
    let expired = world.admissions.expired(Shard::of(world.organization), late, 0, 10).await.expect("Redis");
    let expired: Vec<_> = expired.into_iter().map(|flight| flight.expect("a note that can be read")).collect();
    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0].last_interval_tokens(), Some(1), "all until its only one");
    assert_eq!((expired[0].checkpoint, expired[0].note.event.lease_id), (Some(TokenUsage::text(10, 1)), world.lease));
    let settlement = Settlement { event: &expired[0].note.event, price_micros: 40, end: End::Used, counted: &[], traceparent: None };
    world.admissions.settle(&settlement).await.expect("Redis");
    assert_eq!((world.remaining().await, world.appended().await), (960, vec![(event.request_id, 40)]));
}

/// `always`: whatever was confirmed survives.
#[tokio::test]
async fn what_redis_confirmed_to_be_on_its_disk_survives_a_power_failure() {
    let mut world = World::with(1000).await;
    let event = world.begin(300).await;
    world.settle(&event, 120).await;
    let run = world.admissions.on_disk().await.expect("Redis").expect("it is on the disk");
    let on_disk = world.redis.log_bytes();
    world.begin(10).await;
    assert_eq!(world.admissions.on_disk().await.expect("Redis"), Some(run.clone()));
    world.redis.lose_power(on_disk);
    world.redis.restart().await.expect("Redis");
    let next = world.admissions.on_disk().await.expect("Redis").expect("it is on the disk");
    assert_ne!(next, run, "what was told to the run before is not what this one confirms");
    assert_eq!((world.settle(&event, 999).await, world.remaining().await, world.in_flight().await), (120, 880, 0));
    assert_eq!(world.appended().await, [(event.request_id, 120)]);
}

/// A lease that was filled within the lost second is not there any more; what was taken from it is asked for from the next one.
#[tokio::test]
async fn a_lease_that_redis_forgot_is_lost_and_not_made_again() {
    let mut world = World::with(1000).await;
    let second = contracts::LeaseId::new(&world.clock, &world.random);
    let on_disk = world.redis.log_bytes();
    world.fund(second, 2, 500, true).await;
    world.redis.lose_power(on_disk);
    world.redis.restart().await.expect("Redis");
    assert_eq!(world.fund(second, 2, 600, false).await, admission::Funded::Lost);
}

#[tokio::test]
async fn while_redis_hangs_nothing_is_said_to_be_on_the_disk() {
    let world = World::with(1000).await;
    world.redis.pause();
    assert!(world.admissions.on_disk().await.is_err());
    world.redis.resume();
    assert!(world.admissions.on_disk().await.expect("Redis").is_some());
}
