//! Who is killed, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway_bench::stack::Stack;
use reqwest::Client;

/// Whom, and how often of a hundred.
const VICTIMS: [(&str, u64); 6] =
    [("chat-service", 35), ("billing-service", 30), ("redis", 15), ("postgres", 8), ("llm-simulator", 7), ("auth-service", 5)];

/// Chooses victims and instants; the same ones for the same seed.
#[derive(Debug)]
pub struct Killer {
    state: u64,
    /// How often each was ended, and how.
    pub counts: BTreeMap<String, usize>,
}

impl Killer {
    pub const fn new(seed: u64) -> Self {
        Self { state: seed, counts: BTreeMap::new() }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) % end
    }

    fn victim(&mut self) -> &'static str {
        let mut at = self.below(100);
        for (name, part) in VICTIMS {
            if at < part {
                return name;
            }
            at -= part;
        }
        "chat-service"
    }

    /// Ends so many programs, one after the other, each at some instant after the one before is back.
    pub async fn round(&mut self, stack: &mut Stack, http: &Client, kills: usize) -> Result<()> {
        for number in 0..kills {
            // The instant is the drill, not synchronization.
            tokio::time::sleep(Duration::from_millis(20 + self.below(600))).await;
            // Each once, then by chance.
            let victim = VICTIMS.get(number).map_or_else(|| self.victim(), |(name, _)| name);
            let is_asked = matches!(victim, "chat-service" | "billing-service") && self.below(6) == 0;
            *self.counts.entry(format!("{victim} {}", if is_asked { "SIGTERM" } else { "SIGKILL" })).or_default() += 1;
            match victim {
                "redis" => {
                    stack.redis.kill();
                    stack.redis.restart().await?;
                }
                "postgres" => stack.postgres.crash().await?,
                service => {
                    let program = stack.program(service)?;
                    if is_asked {
                        program.stop().with_context(|| format!("{service} was asked to stop"))?;
                    }
                    program.restart(http).await.with_context(|| format!("{service} after its end"))?;
                }
            }
        }
        Ok(())
    }
}
