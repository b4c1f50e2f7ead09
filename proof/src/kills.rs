//! Who is killed, and when.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_bench::stack::Stack;
use reqwest::Client;

use crate::coverage::Coverage;
use crate::incidents::{self, Incidents};
use crate::steps::{self, STEPS, Step};

/// Whom, and how often of a hundred.
const VICTIMS: [(&str, u64); 7] = [
    ("chat-service", 30),
    ("billing-service", 27),
    ("redis", 13),
    ("postgres", 8),
    ("llm-simulator", 7),
    ("auth-service", 5),
    ("stripe-simulator", 10),
];
/// How long a step may take to be reached.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same of one that is [slow](Step::is_slow).
const LONG_PATIENCE: Duration = Duration::from_secs(10);
/// The same where nothing else is waited for, and how often.
const PATIENCE_OF_THE_REST: Duration = Duration::from_secs(30);
const ROUNDS_OF_THE_REST: usize = 2;
/// The signal of `abort`.
const ABORTED: i32 = 6;

/// Chooses victims and instants; the same ones for the same seed.
#[derive(Debug)]
pub struct Killer {
    state: u64,
    /// How often each was ended, and how.
    pub counts: BTreeMap<String, usize>,
    /// When.
    pub incidents: Incidents,
    /// Where the orders to end at a step are.
    folder: PathBuf,
    /// At which steps.
    pub coverage: Coverage,
    orders: u64,
}

impl Killer {
    /// One whose orders go into this folder.
    #[must_use]
    pub fn new(seed: u64, folder: PathBuf) -> Self {
        Self {
            state: seed,
            counts: BTreeMap::new(),
            incidents: Incidents::default(),
            folder,
            coverage: Coverage::new(seed, STEPS),
            orders: 0,
        }
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
            // Each once, then by chance; every other time at a step, if the load comes there in time.
            let victim = VICTIMS.get(number).map_or_else(|| self.victim(), |(name, _)| name);
            if number >= VICTIMS.len() && number % 2 == 0 && self.at_next_step(stack, http).await? {
                continue;
            }
            let is_asked = matches!(victim, "chat-service" | "billing-service") && self.below(6) == 0;
            *self.counts.entry(format!("{victim} {}", if is_asked { "SIGTERM" } else { "SIGKILL" })).or_default() += 1;
            match victim {
                "redis" => {
                    let since = incidents::now();
                    stack.redis.kill();
                    stack.redis.restart().await?;
                    self.incidents.redis_was_away(since);
                }
                "postgres" => stack.postgres.crash().await?,
                service => {
                    let program = stack.program(service)?;
                    if is_asked {
                        program.stop().with_context(|| format!("{service} was asked to stop"))?;
                    }
                    program.kill();
                    if service == "chat-service" {
                        self.incidents.chat_ended();
                    }
                    program.restart(http).await.with_context(|| format!("{service} after its end"))?;
                }
            }
        }
        Ok(())
    }

    /// Has a program end at each step that was not reached yet and should have been, with more patience than there is between other kills.
    pub async fn rest(&mut self, stack: &mut Stack, http: &Client) -> Result<()> {
        for _ in 0..ROUNDS_OF_THE_REST {
            for index in self.coverage.missing() {
                self.at_step(stack, http, index, 1, PATIENCE_OF_THE_REST).await?;
            }
        }
        Ok(())
    }

    /// Has a program end at the step whose turn it is; false when it does not come there.
    async fn at_next_step(&mut self, stack: &mut Stack, http: &Client) -> Result<bool> {
        let Some(index) = self.coverage.next() else { return Ok(false) };
        let time = 1 + self.below(2);
        let patience = if STEPS[index].is_slow() { LONG_PATIENCE } else { PATIENCE };
        self.at_step(stack, http, index, time, patience).await
    }

    async fn at_step(&mut self, stack: &mut Stack, http: &Client, index: usize, time: u64, patience: Duration) -> Result<bool> {
        let step = &STEPS[index];
        self.orders += 1;
        self.coverage.tried(index);
        let file = steps::file(&self.folder, step.program);
        std::fs::write(&file, steps::order(self.orders, step, time))?;
        let is_there = ended_in_time(stack, step, patience).await;
        if steps::withdrawn(&file) {
            ensure!(!is_there?, "{} ended without its order at {}", step.program, step.name);
            return Ok(false);
        }
        // It has the order, and may be about to carry it out.
        ensure!(is_there? || ended_in_time(stack, step, LONG_PATIENCE).await?, "{} did not end at {}", step.program, step.name);
        self.coverage.reached(index);
        if step.program == "chat-service" {
            self.incidents.chat_ended();
        }
        *self.counts.entry(format!("{} at a step", step.program)).or_default() += 1;
        stack.program(step.program)?.restart(http).await.with_context(|| format!("{} after {}", step.program, step.name))?;
        Ok(true)
    }
}

/// Whether a program ends at its step, and by nothing else.
async fn ended_in_time(stack: &mut Stack, step: &Step, patience: Duration) -> Result<bool> {
    let began = Instant::now();
    while began.elapsed() < patience {
        if let Some(status) = stack.program(step.program)?.ended()? {
            ensure!(status.signal() == Some(ABORTED), "{} ended with {status} instead of at {}", step.program, step.name);
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(false)
}
