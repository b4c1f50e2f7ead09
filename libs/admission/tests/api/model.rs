//! Random sequences of everything that can happen to a lease, against a model of a few lines.

use std::collections::HashMap;

use admission::{End, Verdict};
use contracts::usage::UsageEvent;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::world::World;

#[derive(Debug, Clone)]
enum Step {
    Admit(i64),
    Settle { which: usize, price: i64 },
    NotMade(usize),
    Again(usize),
    Fund(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..400_i64).prop_map(Step::Admit),
        3 => (any::<usize>(), 0..500_i64).prop_map(|(which, price)| Step::Settle { which, price }),
        1 => any::<usize>().prop_map(Step::NotMade),
        1 => any::<usize>().prop_map(Step::Again),
        1 => (1..600_i64).prop_map(Step::Fund),
    ];
    proptest::collection::vec(step, 1..60)
}

#[derive(Default)]
struct Model {
    funded: i64,
    remaining: i64,
    in_flight: Vec<(UsageEvent, i64)>,
    ended: Vec<(UsageEvent, i64)>,
    appended: HashMap<String, i64>,
}

/// [B-36] [B-38] [B-40] [B-41]
#[test]
fn what_is_left_in_flight_and_taken_always_comes_to_what_was_put_in() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let world = runtime.block_on(World::with(1000));
    let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let () = redis::cmd("FLUSHALL").query_async(&mut world.redis.redis.connection()).await.expect("Redis");
            let shard = contracts::Shard::of(world.organization);
            world.admissions.instance(shard, &world.instance.0).await.expect("Redis");
            world.fund(world.lease, 1, 1000, true).await;
            let mut model = Model { funded: 1000, remaining: 1000, ..Model::default() };
            for step in steps {
                apply(&world, &mut model, step).await?;
                prop_assert_eq!(world.remaining().await, model.remaining);
                prop_assert_eq!(world.in_flight().await, model.in_flight.len() as u64);
                let flying: i64 = model.in_flight.iter().map(|(_, cost)| cost).sum();
                let taken: i64 = model.appended.values().sum();
                prop_assert_eq!(model.remaining + flying + taken, model.funded);
            }
            let appended: HashMap<String, i64> =
                world.appended().await.into_iter().map(|(request, taken)| (request.to_string(), taken)).collect();
            prop_assert_eq!(appended, model.appended);
            Ok(())
        })
    });
    outcome.expect("the model holds");
}

async fn apply(world: &World, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::Admit(cost) => {
            let event = world.event(cost);
            let fits = model.remaining >= cost;
            match world.admit(&event, &[]).await {
                Verdict::Admitted { .. } => {
                    prop_assert!(fits);
                    model.remaining -= cost;
                    model.in_flight.push((event, cost));
                }
                Verdict::Short { all, .. } => prop_assert!(!fits && all.missing_micros == cost - model.remaining),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        Step::Settle { which, price } if !model.in_flight.is_empty() => {
            let (event, cost) = model.in_flight.remove(which % model.in_flight.len());
            prop_assert_eq!(world.settle(&event, price).await, price);
            model.remaining += cost - price;
            model.appended.insert(event.request_id.to_string(), price);
            model.ended.push((event, price));
        }
        Step::NotMade(which) if !model.in_flight.is_empty() => {
            let (event, cost) = model.in_flight.remove(which % model.in_flight.len());
            world.end(&event, 0, End::NotMade, &[]).await;
            model.remaining += cost;
            model.ended.push((event, 0));
        }
        Step::Again(which) if !model.ended.is_empty() => {
            let (event, taken) = &model.ended[which % model.ended.len()];
            prop_assert_eq!(world.settle(event, 77).await, *taken, "again it changes nothing");
        }
        Step::Fund(more) => {
            model.funded += more;
            model.remaining += more;
            world.fund(world.lease, 1, model.funded, false).await;
        }
        Step::Settle { .. } | Step::NotMade(_) | Step::Again(_) => {}
    }
    Ok(())
}
