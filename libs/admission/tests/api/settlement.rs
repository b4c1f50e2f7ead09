//! The end of a request, exactly once.

use admission::{End, Verdict};
use contracts::usage::UsageEvent;
use futures::future::join_all;

use crate::world::World;

/// [B-41]
#[tokio::test]
async fn a_settlement_returns_the_unused_part_once_and_answers_the_same_again() {
    let world = World::with(1000).await;
    let event = world.begin(300).await;
    assert_eq!((world.remaining().await, world.in_flight().await), (700, 1));
    let taken = join_all((0..64).map(|_| world.settle(&event, 120))).await;
    assert!(taken.iter().all(|taken| *taken == 120), "{taken:?}");
    assert_eq!(world.settle(&event, 999).await, 120, "the first counts");
    assert_eq!((world.remaining().await, world.in_flight().await), (880, 0));
    assert_eq!(world.appended().await, [(event.request_id, 120)]);
}

/// [B-40]
#[tokio::test]
async fn what_costs_more_than_was_taken_comes_from_the_lease_and_the_next_request_must_wait_for_more() {
    let world = World::with(500).await;
    let event = world.begin(300).await;
    assert_eq!(world.settle(&event, 600).await, 600);
    assert_eq!(world.remaining().await, -100);
    let Verdict::Short { missing_micros, .. } = world.admit(&world.event(50), &[]).await else { panic!("there is nothing left") };
    assert_eq!(missing_micros, 150, "the next one and what is owed");
}

#[tokio::test]
async fn a_call_that_was_not_made_takes_nothing_leaves_nothing_and_cannot_begin_any_more() {
    let world = World::with(1000).await;
    let begun = world.begin(300).await;
    assert_eq!(world.end(&begun, 0, End::NotMade, &[]).await, 0);
    assert_eq!(world.remaining().await, 1000);
    // The admission whose answer was lost may reach Redis after its end.
    let late = world.event(300);
    world.end(&late, 0, End::NotMade, &[]).await;
    assert_eq!(world.admit(&late, &[]).await, Verdict::Duplicate);
    assert_eq!((world.remaining().await, world.in_flight().await, world.appended().await.len()), (1000, 0, 0));
}

#[tokio::test]
async fn the_call_that_was_not_made_knows_its_lease_from_its_flight() {
    let world = World::with(1000).await;
    let begun = world.begin(300).await;
    let unknown = UsageEvent { lease_id: contracts::LeaseId::new(&world.clock, &world.random), ..begun };
    world.end(&unknown, 0, End::NotMade, &[]).await;
    assert_eq!(world.remaining().await, 1000);
}

/// After its lease ended there is nothing to return to: all that was reserved is told, and billing-service returns the rest.
#[tokio::test]
async fn on_a_lease_that_was_closed_a_request_takes_all_that_was_reserved() {
    let world = World::with(1000).await;
    let event = world.begin(300).await;
    assert_eq!(world.admissions.close(world.organization, world.lease).await.expect("Redis").remaining_micros, Some(700));
    assert_eq!(world.settle(&event, 120).await, 300);
    assert_eq!(world.appended().await, [(event.request_id, 300)]);
}

#[tokio::test]
async fn what_billing_has_posted_already_is_forgotten_and_nothing_returns_to_the_lease() {
    let world = World::with(1000).await;
    let event = world.begin(300).await;
    world.end(&event, 120, End::Posted, &[]).await;
    assert_eq!((world.remaining().await, world.in_flight().await, world.appended().await.len()), (700, 0, 0));
}

/// Zero has no minus: the server takes `-0` for no number, and whoever settles would try for ever.
#[tokio::test]
async fn what_costs_nothing_is_admitted_and_settled_also_when_its_flight_was_forgotten() {
    let world = World::with(1000).await;
    let free = world.begin(0).await;
    assert_eq!((world.settle(&free, 0).await, world.remaining().await), (0, 1000));
    let forgotten = world.event(300);
    assert_eq!((world.settle(&forgotten, 0).await, world.remaining().await), (0, 1000));
    assert_eq!(world.appended().await.len(), 2);
}

#[tokio::test]
async fn a_flight_whose_note_cannot_be_read_does_not_hide_the_others() {
    let world = World::with(1000).await;
    let (newer, event) = (world.begin(300).await, world.begin(300).await);
    let shard = contracts::Shard::of(world.organization);
    let mut connection = world.redis.redis.connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("*{}*", newer.request_id)).query_async(&mut connection).await.expect("Redis");
    let note = redis::cmd("HSET").arg(&keys[0]).arg("note").arg("{\"of\": \"a newer version\"}").to_owned();
    let _: i64 = note.query_async(&mut connection).await.expect("Redis");
    let late = world.clock.now() + chrono::TimeDelta::minutes(6);
    let found = world.admissions.expired(shard, late, 0, 10).await.expect("Redis");
    let (readable, unreadable): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
    assert_eq!(readable.into_iter().flatten().map(|flight| flight.note.event.request_id).collect::<Vec<_>>(), [event.request_id]);
    assert_eq!(
        unreadable.into_iter().filter_map(Result::err).map(|flight| flight.request_id).collect::<Vec<_>>(),
        [newer.request_id.to_string()]
    );
}
