//! The fault drills at random: some kills under one load, then recovery and the books, again and again.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::drills::{aftermath, load, slow, under_way};
use crate::person::Person;
use crate::stack::Stack;

/// Kills under one load, so that some meet what others have left half done.
const TOGETHER: usize = 3;
/// The hot path most often.
const VICTIMS: [&str; 10] = [
    "chat-service",
    "chat-service",
    "chat-service",
    "billing-service",
    "billing-service",
    "redis",
    "postgres",
    "llm-simulator",
    "stripe-simulator",
    "auth-service",
];

/// How many kills the command line asks for, if any.
pub fn wanted() -> Option<usize> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--kills");
    arguments.nth(1).and_then(|number| number.parse().ok())
}

/// Kills so many processes; one line for each load.
pub async fn run(stack: &Stack, kills: usize) -> Result<()> {
    let mut state: u64 = 1;
    let mut below = move |end: u64| {
        // Knuth's MMIX generator; its upper half is random enough for instants.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    let mut done = 0;
    while done < kills {
        let person = Person::sign_up(stack).await?;
        stack.knobs(&slow()).await?;
        let load = load(&person);
        under_way(stack, &person).await?;
        let mut victims = Vec::new();
        for _ in 0..TOGETHER.min(kills - done) {
            let victim = VICTIMS[usize::try_from(below(10))?];
            stack.kill(victim)?;
            victims.push(victim);
            // The instant is the drill, not synchronization.
            tokio::time::sleep(Duration::from_millis(below(1500))).await;
            // What is still starting cannot be killed again.
            stack.recovered().await?;
        }
        done += victims.len();
        aftermath(stack, &person, load, victims.contains(&"chat-service")).await.with_context(|| format!("after {victims:?}"))?;
        println!("        {done} of {kills}: {victims:?}");
    }
    Ok(())
}
