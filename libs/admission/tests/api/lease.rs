//! Filling and ending a lease, whatever order the calls arrive in.

use admission::{Funded, Instance, Shortage, Verdict};
use contracts::{LeaseId, Shard};
use futures::future::join_all;

use crate::world::World;

/// [B-37] [B-38]
#[tokio::test]
async fn of_many_requests_at_once_exactly_those_that_fit_are_admitted() {
    let world = World::with(21 * 300 + 299).await;
    let events: Vec<_> = (0..64).map(|_| world.event(300)).collect();
    let verdicts = join_all(events.iter().map(|event| world.admit(event, &[]))).await;
    assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Admitted { .. })).count(), 21);
    let short = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Short { all: Shortage { missing_micros: 1, .. }, .. })).count();
    assert_eq!((short, world.remaining().await), (43, 299));
}

#[tokio::test]
async fn a_lease_is_filled_to_its_total_in_whatever_order_and_however_often_it_is_told() {
    let world = World::with(100).await;
    world.begin(60).await;
    for (total, remaining) in [(300, 240), (200, 240), (300, 240), (500, 440)] {
        assert_eq!(world.fund(world.lease, 1, total, total == 300).await, Funded::Yes);
        assert_eq!(world.remaining().await, remaining);
    }
}

#[tokio::test]
async fn an_older_lease_never_comes_back_over_a_newer_one_nor_one_that_was_closed() {
    let world = World::with(100).await;
    let newer = LeaseId::new(&world.clock, &world.random);
    assert_eq!(world.fund(newer, 2, 500, true).await, Funded::Yes);
    assert_eq!(world.fund(world.lease, 1, 900, true).await, Funded::Closed, "its rest is to be asked for");
    let oldest = LeaseId::new(&world.clock, &world.random);
    assert_eq!(world.fund(oldest, 0, 900, true).await, Funded::Superseded { epoch: 2 }, "and how late the later one is");
    assert_eq!(world.remaining().await, 500);
    let closed = world.admissions.close(world.organization, None, world.lease).await.expect("Redis");
    assert_eq!(closed.remaining_micros, Some(100));
}

#[tokio::test]
async fn a_closed_lease_says_what_was_left_until_it_is_forgotten_and_admits_nothing() {
    let world = World::with(100).await;
    world.begin(60).await;
    let closed = join_all((0..8).map(|_| world.admissions.close(world.organization, None, world.lease))).await;
    for closed in closed {
        let closed = closed.expect("Redis");
        assert_eq!(closed.remaining_micros, Some(40));
        assert!(closed.last_deadline_ms > world.clock.now().timestamp_millis());
    }
    let none = Shortage { lease: None, missing_micros: 1 };
    assert_eq!(world.admit(&world.event(1), &[]).await, Verdict::Short { all: none, model: none });
    assert_eq!(world.fund(world.lease, 1, 900, false).await, Funded::Closed);
    world.admissions.forget(world.organization, None, world.lease).await.expect("Redis");
    assert_eq!(world.admissions.close(world.organization, None, world.lease).await.expect("Redis").remaining_micros, None);
}

/// Of each organization that ever came something would stay for ever.
#[tokio::test]
async fn a_lease_that_was_forgotten_leaves_nothing_that_stays_and_another_one_in_its_place_does() {
    let world = World::with(100).await;
    let left = async || {
        let key = Shard::of(world.organization).key(&format!("lease:{}", world.organization));
        let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut world.redis.redis.connection()).await.expect("Redis");
        left
    };
    world.begin(60).await;
    let later = LeaseId::new(&world.clock, &world.random);
    assert_eq!(world.fund(later, 2, 500, true).await, Funded::Yes);
    world.admissions.close(world.organization, None, world.lease).await.expect("Redis");
    world.admissions.forget(world.organization, None, world.lease).await.expect("Redis");
    assert_eq!((left().await, world.remaining().await), (-1, 500), "the later one is there");
    world.admissions.close(world.organization, None, later).await.expect("Redis");
    assert_eq!(left().await, -1, "what was left of it is not back yet");
    world.admissions.forget(world.organization, None, later).await.expect("Redis");
    assert!(left().await > 0);
    assert_eq!(world.fund(LeaseId::new(&world.clock, &world.random), 3, 500, true).await, Funded::Yes);
    assert_eq!(left().await, -1);
}

/// Redis lost everything and is empty: the money in the old lease is not made a second time.
#[tokio::test]
async fn a_server_that_lost_its_data_does_not_get_its_leases_again() {
    let mut world = World::with(1000).await;
    world.begin(300).await;
    let () = redis::cmd("FLUSHALL").query_async(&mut world.redis.redis.connection()).await.expect("Redis");
    for is_new in [false, true] {
        assert_eq!(world.fund(world.lease, 1, 1000, is_new).await, Funded::Lost);
    }
    let shard = Shard::of(world.organization);
    let (one, other) = tokio::join!(world.admissions.instance(shard, "second"), world.admissions.instance(shard, "third"));
    assert_eq!(one.expect("Redis"), other.expect("Redis"), "it gets one name");
    assert_eq!(world.fund(world.lease, 1, 1000, true).await, Funded::Lost, "and is another one now");
    world.instance = world.admissions.instance(shard, "x").await.expect("Redis");
    assert_ne!(world.instance, Instance("first".into()));
    assert_eq!(world.fund(LeaseId::new(&world.clock, &world.random), 2, 500, true).await, Funded::Yes);
}

#[tokio::test]
async fn a_request_is_told_when_its_lease_runs_low() {
    let world = World::with(1000).await;
    for (cost, expected) in [(750, false), (1, true)] {
        let Verdict::Admitted { low, lease, of_model: false } = world.admit(&world.event(cost), &[]).await else {
            panic!("there is enough")
        };
        assert_eq!((low, lease.lease_id, lease.funded_micros), (expected, world.lease, 1000));
    }
}

/// All keys of a call lie on one node of a cluster.
#[tokio::test]
async fn every_key_has_the_hash_tag_of_the_organizations_shard() {
    let world = World::with(1000).await;
    let event = world.begin(10).await;
    world.begin(10).await;
    world.settle(&event, 5).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut world.redis.redis.connection()).await.expect("Redis");
    let tag = Shard::of(world.organization).key("");
    assert!(keys.len() >= 5 && keys.iter().all(|key| key.starts_with(&tag)), "{keys:?}");
}

/// [B-46] Half-open: at that instant it admits nothing any more.
#[tokio::test]
async fn a_lease_admits_until_just_before_its_end() {
    let world = World::with(1000).await;
    let end = world.clock.now() + chrono::TimeDelta::minutes(1);
    let key = Shard::of(world.organization).key(&format!("lease:{}", world.organization));
    let mut connection = world.redis.redis.connection();
    let () = redis::cmd("HSET").arg(key).arg("until").arg(end.timestamp_millis()).query_async(&mut connection).await.expect("Redis");
    for (early, admitted) in [(1, true), (0, false), (-1, false)] {
        let event = world.event(10);
        let note = admission::Note { event: event.clone(), counted: Vec::new(), traceparent: None };
        let admission = admission::Admission {
            request_id: event.request_id,
            organization_id: world.organization,
            cost_micros: 10,
            now: end - chrono::TimeDelta::milliseconds(early),
            deadline: end,
            limits: &[],
            note: &note,
        };
        let verdict = world.admissions.admit(&admission).await.expect("Redis");
        assert_eq!(matches!(verdict, Verdict::Admitted { .. }), admitted, "{early} ms before");
    }
}

/// [B-37] Credit for one model: its requests take it when the lease for all does not reach, and give back what they did not use to it.
#[tokio::test]
async fn the_lease_for_a_model_pays_for_its_requests_alone_and_only_where_the_one_for_all_does_not_reach() {
    let world = World::with(100).await;
    let special = LeaseId::new(&world.clock, &world.random);
    assert_eq!(world.fund_of(Some("m"), special, 2, 300, true).await, Funded::Yes);
    let left = || async { world.admissions.remaining(world.organization, Some("m")).await.expect("Redis").expect("a lease").1 };
    let event = world.event(90);
    let Verdict::Admitted { lease, of_model: false, .. } = world.admit(&event, &[]).await else { panic!("the one for all reaches") };
    assert_eq!((lease.lease_id, world.remaining().await, left().await), (world.lease, 10, 300));
    let other = contracts::usage::UsageEvent { model: "other".into(), ..world.event(90) };
    let Verdict::Short { all, model } = world.admit(&other, &[]).await else { panic!("it is not for that one") };
    assert_eq!((all.missing_micros, model), (80, Shortage { lease: None, missing_micros: 90 }));
    let event = world.event(250);
    let Verdict::Admitted { lease, of_model: true, low: true } = world.admit(&event, &[]).await else { panic!("it is for this one") };
    assert_eq!((lease.lease_id, lease.funded_micros, world.remaining().await, left().await), (special, 300, 10, 50));
    let Verdict::Short { all, model } = world.admit(&world.event(90), &[]).await else { panic!("neither reaches") };
    assert_eq!((all.missing_micros, model.missing_micros, model.lease), (80, 40, Some(lease)));
    assert_eq!((world.settle(&event, 100).await, world.settle(&event, 100).await), (100, 100));
    assert_eq!((world.remaining().await, left().await), (10, 200));
    let closed = world.admissions.close(world.organization, Some("m"), special).await.expect("Redis");
    assert_eq!((closed.remaining_micros, world.remaining().await), (Some(200), 10), "each ends alone");
}
