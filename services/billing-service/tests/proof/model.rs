//! Random commands against billing-service on real Postgres and Redis and a Stripe beside it, and against a reference model of a few
//! lines; after each step the ledger, the lots, the leases, the plans, Redis and what the API shows are what the model says. What was done,
//! and what came of it, is counted and printed.
//!
//! `TRIVET_PROOF_STEPS` makes it longer and `TRIVET_PROOF_SEED` another; a failure is printed with its seed, made shorter.

#[path = "model/commands.rs"]
mod commands;
#[path = "model/compare.rs"]
mod compare;
#[path = "model/credit.rs"]
mod credit;
#[path = "model/plans.rs"]
mod plans;
#[path = "model/requests.rs"]
mod requests;
#[path = "model/state.rs"]
mod state;
#[path = "model/subscribe.rs"]
mod subscribe;
#[path = "model/world.rs"]
mod world;

use std::time::Duration;

use anyhow::Context;
use chassis::config::Millis;

use super::shop::Shop;
use commands::{Dice, Step, shrink};
use subscribe::Tally;
use world::World;

/// Steps of a sequence; each begins with two new wallets.
const SEQUENCE: u64 = 60;
/// Databases at once: most of the time somebody waits for a disk.
const LANES: usize = 4;
/// Sequences on one database: it grows, and looking at it becomes slow.
const ON_ONE_DATABASE: usize = 80;

/// A number that a longer run gives.
fn given(name: &str, otherwise: u64) -> u64 {
    std::env::var_os(name).map_or(otherwise, |text| text.to_str().and_then(|text| text.parse().ok()).expect("a number"))
}

async fn start() -> Shop {
    let shop = Shop::selling(plans::CATALOG, |config| {
        (config.sweep, config.signup_grant) = (Millis(Duration::from_hours(10_000)), world::SIGNUP);
        config.lease.start = 700;
        // Connections wait for longer than ten seconds between two steps that use them all.
        config.http.header_timeout = Millis(Duration::from_hours(1));
        config.usage.roll_up = Millis(Duration::from_secs(1));
    })
    .await;
    shop.settle().await;
    shop
}

async fn run(shop: &Shop, steps: &[Step], tally: &Tally) -> anyhow::Result<()> {
    subscribe::leave_plans(shop).await;
    let mut world = World::new(shop, tally).await;
    for (number, step) in steps.iter().enumerate() {
        tally.note(&step.1.name());
        let outcome = match world.apply(*step).await {
            Ok(()) => world.compare().await,
            refused => refused,
        };
        outcome.with_context(|| format!("step {number} {step:?}"))?;
    }
    Ok(())
}

/// Every so manieth sequence.
async fn lane(lane: u64, sequences: u64, seed: u64, tally: &Tally) {
    let mut shop = start().await;
    for (number, sequence) in (lane..sequences).step_by(LANES).enumerate() {
        if number % ON_ONE_DATABASE == ON_ONE_DATABASE - 1 {
            shop.app.assert_clean().await;
            shop = start().await;
        }
        let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(sequence));
        let commands = dice.sequence(SEQUENCE);
        if let Err(first) = run(&shop, &commands, tally).await {
            let shorter = shrink(commands, 60, async |steps| run(&shop, steps, tally).await.is_err()).await;
            let error = run(&shop, &shorter, tally).await.err();
            let shorter: Vec<String> = shorter.iter().map(|step| format!("{step:?}")).collect();
            panic!("seed {seed}, sequence {sequence}: {first:#}\n\nshorter: {error:?}\n{}", shorter.join("\n"));
        }
    }
    shop.app.assert_clean().await;
}

/// [B-36] [B-37] [B-40] [B-41] [B-42] [B-43] [B-45] [B-46] [B-48] [B-50] [B-71] [B-72] [B-77] [B12] Whatever happens in whatever order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_ledger_lots_leases_and_redis_are_what_the_model_says() {
    let (sequences, seed) = (given("TRIVET_PROOF_STEPS", 2400).div_ceil(SEQUENCE), given("TRIVET_PROOF_SEED", 1));
    let tally = Tally::default();
    futures::future::join_all((0_u64..).take(LANES).map(|number| lane(number, sequences, seed, &tally))).await;
    let tally = tally.counts();
    println!("{tally:?}");
    if (seed, sequences) == (1, 40) {
        // What the model does not meet it cannot judge.
        for met in
            ["trial begun", "plan bought", "upgraded", "downgrade wanted", "end wanted", "end unwanted", "renewed", "failed", "mended"]
        {
            assert!(tally.contains_key(met), "never {met}: {tally:?}");
        }
    }
}
