//! Limits, all checked before anything is written.

use std::time::Duration;

use admission::{Counted, End, Funded, Limit, Meter, Verdict, Window};

use crate::world::World;

fn limit(world: &World, scope: &str, meter: Meter, most: i64, amount: i64) -> Limit {
    let minute = Duration::from_mins(1);
    let window = if meter == Meter::Requests { Window::Sliding(minute) } else { Window::Calendar(minute) };
    Limit { key: Limit::key(world.organization, scope), meter, most, amount, window, least: 0 }
}

/// [B-39] [B18]
#[tokio::test]
async fn exactly_the_limit_is_allowed_and_what_refuses_is_named_with_its_wait() {
    let world = World::with(1000).await;
    let limits = [limit(&world, "key", Meter::Requests, 5, 1), limit(&world, "tokens", Meter::Tokens, 100, 50)];
    for _ in 0..2 {
        assert!(matches!(world.admit(&world.event(10), &limits).await, Verdict::Admitted { .. }));
    }
    let Verdict::Limited { limit, retry_after } = world.admit(&world.event(10), &limits).await else { panic!("100 tokens are 100 tokens") };
    assert!(limit == 1 && retry_after > Duration::ZERO && retry_after <= Duration::from_mins(1));
    let requests = [limits[0].clone()];
    for _ in 0..3 {
        assert!(matches!(world.admit(&world.event(10), &requests).await, Verdict::Admitted { .. }), "the refused one was not counted");
    }
    assert!(matches!(world.admit(&world.event(10), &requests).await, Verdict::Limited { limit: 0, .. }));
    assert_eq!(world.remaining().await, 1000 - 5 * 10, "and took nothing");
}

/// Who has no money is held to limits of requests too; of all others it has used nothing.
#[tokio::test]
async fn what_the_lease_refuses_counts_as_a_request_and_for_no_sum() {
    let world = World::with(10).await;
    let limits = [limit(&world, "key", Meter::Requests, 2, 1), limit(&world, "spend", Meter::Spend, 100, 100)];
    for _ in 0..2 {
        assert!(matches!(world.admit(&world.event(11), &limits).await, Verdict::Short { .. }));
    }
    let Verdict::Limited { limit, retry_after } = world.admit(&world.event(10), &limits).await else { panic!("two are two") };
    assert!(limit == 0 && retry_after > Duration::ZERO && retry_after <= Duration::from_mins(1));
    assert!(matches!(world.admit(&world.event(10), &limits[1..]).await, Verdict::Admitted { .. }), "nothing was spent");
}

/// As chat-service asks, when it has had the lease filled.
#[tokio::test]
async fn a_request_that_asks_again_is_counted_once_and_is_not_refused_by_its_own_entry() {
    let world = World::with(10).await;
    let limits = [limit(&world, "key", Meter::Requests, 1, 1), limit(&world, "organization", Meter::Requests, 2, 1)];
    let (first, other) = (world.event(11), world.event(1));
    for _ in 0..3 {
        assert!(matches!(world.admit(&first, &limits).await, Verdict::Short { .. }));
        assert!(matches!(world.admit(&other, &limits).await, Verdict::Limited { limit: 0, .. }), "the first one waits and has the place");
    }
    assert_eq!(world.fund(world.lease, 1, 100, false).await, Funded::Yes);
    assert!(matches!(world.admit(&first, &limits).await, Verdict::Admitted { .. }));
    assert!(matches!(world.admit(&other, &limits).await, Verdict::Limited { limit: 0, .. }));
    assert!(matches!(world.admit(&other, &limits[1..]).await, Verdict::Admitted { .. }), "the first one is one of two");
    assert!(matches!(world.admit(&world.event(1), &limits[1..]).await, Verdict::Limited { limit: 0, .. }));
}

/// Two limits of requests: what one refuses takes no place of the other, although money would not have reached either.
#[tokio::test]
async fn what_one_limit_refuses_is_counted_by_no_other_whether_money_reaches_or_not() {
    let world = World::with(10).await;
    let limits = [limit(&world, "organization", Meter::Requests, 2, 1), limit(&world, "key", Meter::Requests, 1, 1)];
    assert!(matches!(world.admit(&world.event(11), &limits).await, Verdict::Short { .. }));
    for _ in 0..2 {
        assert!(matches!(world.admit(&world.event(11), &limits).await, Verdict::Limited { limit: 1, .. }));
    }
    assert!(matches!(world.admit(&world.event(10), &limits[..1]).await, Verdict::Admitted { .. }), "one of two was counted");
}

#[tokio::test]
async fn sums_count_the_worst_case_in_flight_and_what_was_used_afterwards() {
    let world = World::with(1000).await;
    let limits = [limit(&world, "tokens", Meter::Tokens, 100, 90), limit(&world, "spend", Meter::Spend, 500, 400)];
    let counted: Vec<Counted> = limits.iter().filter_map(Limit::counted).collect();
    let event = world.event(400);
    assert!(matches!(world.admit(&event, &limits).await, Verdict::Admitted { .. }));
    assert!(matches!(world.admit(&world.event(400), &limits).await, Verdict::Limited { limit: 0, .. }));
    for _ in 0..2 {
        world.end(&event, 100, End::Used, &counted).await;
    }
    // 15 tokens and 100 micro-units were used.
    let next = [limit(&world, "tokens", Meter::Tokens, 100, 85), limit(&world, "spend", Meter::Spend, 500, 400)];
    assert!(matches!(world.admit(&world.event(400), &next).await, Verdict::Admitted { .. }), "to the last one");
    assert!(matches!(world.admit(&world.event(1), &[limit(&world, "tokens", Meter::Tokens, 100, 1)]).await, Verdict::Limited { .. }));
}

/// Whoever knows what was spent says so: a counter knows only what it has counted.
#[tokio::test]
async fn a_counter_comes_to_what_is_known_to_be_spent_at_least() {
    let world = World::with(1000).await;
    let spend = |amount, least| Limit { least, ..limit(&world, "spend", Meter::Spend, 500, amount) };
    let event = world.event(101);
    assert!(matches!(world.admit(&event, &[spend(101, 400)]).await, Verdict::Limited { limit: 0, .. }));
    assert!(matches!(world.admit(&event, &[spend(101, 399)]).await, Verdict::Admitted { .. }), "what was refused left nothing behind");
    assert!(matches!(world.admit(&world.event(1), &[spend(1, 0)]).await, Verdict::Limited { .. }), "it is full, whatever is said now");
    let counted: Vec<Counted> = spend(101, 0).counted().into_iter().collect();
    world.end(&event, 1, End::Used, &counted).await;
    assert!(matches!(world.admit(&world.event(100), &[spend(100, 0)]).await, Verdict::Admitted { .. }), "399 before and 1 of the first");
    assert!(matches!(world.admit(&world.event(1), &[spend(1, 0)]).await, Verdict::Limited { .. }));
    let other = |amount, least| Limit { least, ..limit(&world, "other", Meter::Spend, 500, amount) };
    assert!(matches!(world.admit(&world.event(1), &[other(50, 0)]).await, Verdict::Admitted { .. }));
    assert!(matches!(world.admit(&world.event(1), &[other(1, 500)]).await, Verdict::Limited { .. }), "others spent 500");
    assert!(matches!(world.admit(&world.event(1), &[other(50, 40)]).await, Verdict::Admitted { .. }), "which it counted itself");
    assert!(matches!(world.admit(&world.event(1), &[other(100, 300)]).await, Verdict::Admitted { .. }), "200 that it did not count");
    assert!(matches!(world.admit(&world.event(1), &[other(101, 0)]).await, Verdict::Limited { .. }));
    assert!(matches!(world.admit(&world.event(1), &[other(100, 0)]).await, Verdict::Admitted { .. }), "to the last one");
}

/// What Redis has lost is in no counter: a counter that was made anew is told what was used, and not the difference.
#[tokio::test]
async fn a_request_that_redis_forgot_counts_with_what_it_used() {
    let world = World::with(1000).await;
    let spend = |amount| limit(&world, "spend", Meter::Spend, 500, amount);
    let counted: Vec<Counted> = spend(400).counted().into_iter().collect();
    let (lost, not_made) = (world.event(400), world.event(400));
    // Neither flight is known; the counter is there again.
    assert!(matches!(world.admit(&world.event(100), &[spend(100)]).await, Verdict::Admitted { .. }));
    world.end(&lost, 300, End::Used, &counted).await;
    world.end(&not_made, 0, End::NotMade, &counted).await;
    assert!(matches!(world.admit(&world.event(101), &[spend(101)]).await, Verdict::Limited { .. }));
    assert!(matches!(world.admit(&world.event(100), &[spend(100)]).await, Verdict::Admitted { .. }), "100 and 300 are 400");
}
