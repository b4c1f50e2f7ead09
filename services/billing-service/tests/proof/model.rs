//! Random commands against billing-service on real Postgres and Redis, and against a reference model of a few lines; after each step
//! the ledger, the lots, the leases, Redis and what the API shows are what the model says.
//!
//! `TRIVET_PROOF_STEPS` makes it longer and `TRIVET_PROOF_SEED` another; a failure is printed with its seed, made shorter.

#[path = "model/commands.rs"]
mod commands;
#[path = "model/compare.rs"]
mod compare;
#[path = "model/credit.rs"]
mod credit;
#[path = "model/requests.rs"]
mod requests;
#[path = "model/state.rs"]
mod state;
#[path = "model/world.rs"]
mod world;

use std::time::Duration;

use anyhow::Context;
use chassis::config::Millis;

use super::app::App;
use commands::{Dice, Step, shrink};
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

async fn start() -> App {
    App::with(|config| {
        (config.sweep, config.signup_grant) = (Millis(Duration::from_hours(10_000)), world::SIGNUP);
        config.lease.start = 700;
        config.usage.roll_up = Millis(Duration::from_secs(1));
    })
    .await
}

async fn run(app: &App, steps: &[Step]) -> anyhow::Result<()> {
    let mut world = World::new(app).await;
    for (number, step) in steps.iter().enumerate() {
        let outcome = match world.apply(*step).await {
            Ok(()) => world.compare().await,
            refused => refused,
        };
        outcome.with_context(|| format!("step {number} {step:?}"))?;
    }
    Ok(())
}

/// Every so manieth sequence.
async fn lane(lane: u64, sequences: u64, seed: u64) {
    let mut app = start().await;
    for (number, sequence) in (lane..sequences).step_by(LANES).enumerate() {
        if number % ON_ONE_DATABASE == ON_ONE_DATABASE - 1 {
            app.assert_clean().await;
            app = start().await;
        }
        let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(sequence));
        let commands: Vec<Step> = (0..SEQUENCE).map(|_| dice.step()).collect();
        if let Err(first) = run(&app, &commands).await {
            let shorter = shrink(commands, 60, async |steps| run(&app, steps).await.is_err()).await;
            let error = run(&app, &shorter).await.err();
            let shorter: Vec<String> = shorter.iter().map(|step| format!("{step:?}")).collect();
            panic!("seed {seed}, sequence {sequence}: {first:#}\n\nshorter: {error:?}\n{}", shorter.join("\n"));
        }
    }
    app.assert_clean().await;
}

/// [B-36] [B-37] [B-40] [B-41] [B-42] [B-43] [B-45] [B-46] [B-48] [B-50] [B12] Whatever happens in whatever order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_ledger_lots_leases_and_redis_are_what_the_model_says() {
    let (sequences, seed) = (given("TRIVET_PROOF_STEPS", 2400).div_ceil(SEQUENCE), given("TRIVET_PROOF_SEED", 1));
    futures::future::join_all((0_u64..).take(LANES).map(|number| lane(number, sequences, seed))).await;
}
