//! The end of a request, exactly once.

use std::time::Duration;

use admission::{Counted, End, Limit, Meter, Shortage, Verdict, Window};
use contracts::usage::{CountedBy, UsageEvent};
use futures::future::join_all;
use money::TokenUsage;

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
    let Verdict::Short { all: Shortage { missing_micros, .. }, .. } = world.admit(&world.event(50), &[]).await else {
        panic!("there is nothing left")
    };
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
    assert_eq!(world.admissions.close(world.organization, None, world.lease).await.expect("Redis").remaining_micros, Some(700));
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

/// A request with its sums: what it was counted for.
async fn begin_counted(world: &World) -> (UsageEvent, Vec<Counted>) {
    let window = Window::Calendar(Duration::from_hours(1));
    let limit = |scope, meter, amount| Limit { key: Limit::key(world.organization, scope), meter, most: 10_000, amount, window, least: 0 };
    let limits = [limit("month", Meter::Spend, 300), limit("tokens", Meter::Tokens, 90)];
    let event = world.event(300);
    assert!(matches!(world.admit(&event, &limits).await, Verdict::Admitted { .. }));
    (event, limits.iter().filter_map(Limit::counted).collect())
}

async fn sums(world: &World, counted: &[Counted]) -> Vec<i64> {
    let keys: Vec<&str> = counted.iter().map(|counted| counted.key.as_str()).collect();
    redis::cmd("MGET").arg(keys).query_async(&mut world.redis.redis.connection()).await.expect("Redis")
}

/// [B-43] A process that was given up for dead, since it could not reach Redis for long, says what was used in truth once it can.
#[tokio::test]
async fn what_was_assumed_of_a_process_and_what_it_says_after_all_are_both_told_and_counted_once() {
    let world = World::with(1000).await;
    let (event, counted) = begin_counted(&world).await;
    let assumed = UsageEvent { usage: TokenUsage::text(10, 1), counted_by: CountedBy::Abandoned, ..event.clone() };
    for _ in 0..2 {
        assert_eq!(world.end(&assumed, 20, End::Used, &counted).await, 20);
    }
    assert_eq!((world.remaining().await, sums(&world, &counted).await), (980, vec![20, 11]));
    for end in [End::Used, End::UsedAgain, End::Used] {
        assert_eq!(world.end(&event, 100, end, &counted).await, 20, "its lease gives no more for it");
    }
    assert_eq!(world.end(&assumed, 20, End::Used, &counted).await, 20);
    assert_eq!((world.remaining().await, sums(&world, &counted).await), (980, vec![100, 15]));
    assert_eq!(world.appended().await, [(event.request_id, 20), (event.request_id, 0)]);
}

/// Redis came back after the answers to what it had settled were over.
#[tokio::test]
async fn who_repeats_what_is_not_remembered_any_more_takes_and_counts_nothing_a_second_time() {
    let world = World::with(1000).await;
    let (event, counted) = begin_counted(&world).await;
    world.end(&event, 100, End::Used, &counted).await;
    let remembered = contracts::Shard::of(world.organization).key(&format!("flight:{}", event.request_id));
    let () = redis::cmd("DEL").arg(remembered).query_async(&mut world.redis.redis.connection()).await.expect("Redis");
    assert_eq!(world.end(&event, 100, End::UsedAgain, &counted).await, 100);
    assert_eq!((world.remaining().await, sums(&world, &counted).await), (900, vec![100, 15]));
    assert_eq!(world.appended().await.len(), 2, "billing-service knows whether it is new");
    let (event, counted) = begin_counted(&world).await;
    world.end(&event, 100, End::UsedAgain, &counted).await;
    assert_eq!((world.remaining().await, sums(&world, &counted).await), (800, vec![200, 30]), "what is known to be in flight ends as ever");
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

/// What a dead process may have left uncharged is guessed from what came in the interval before.
#[tokio::test]
async fn a_flight_says_what_came_between_its_last_two_checkpoints_that_differ_and_nothing_where_that_is_not_known() {
    let world = World::with(1000).await;
    let event = world.begin(300).await;
    let (shard, late) = (contracts::Shard::of(world.organization), world.clock.now() + chrono::TimeDelta::minutes(6));
    let interval = async || {
        let found = world.admissions.expired(shard, late, 0, 10).await.expect("Redis").remove(0);
        found.expect("a note that can be read").last_interval_tokens()
    };
    assert_eq!(interval().await, None, "there is no checkpoint");
    for (output, expected) in [(7, 7), (9, 2), (9, 2), (14, 5)] {
        world.admissions.checkpoint(world.organization, event.request_id, &TokenUsage::text(10, output)).await.expect("Redis");
        assert_eq!(interval().await, Some(expected));
    }
    let mut connection = world.redis.redis.connection();
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("*{}*", event.request_id)).query_async(&mut connection).await.expect("Redis");
    let _: i64 = redis::cmd("HDEL").arg(&keys[0]).arg("checkpoint_before").query_async(&mut connection).await.expect("Redis");
    assert_eq!(interval().await, None, "a version that did not note it");
}
