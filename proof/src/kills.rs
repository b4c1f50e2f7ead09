//! Who is killed, and when.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_bench::stack::Stack;
use reqwest::Client;
use serde_json::{Value, json};

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
/// A program that could end at a step this often must have done so, or nothing leads there.
const ENOUGH: usize = 6;
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
    /// How often each step was to be the last, and how often it was.
    steps: Vec<(usize, usize)>,
    /// Where they begin: few kills come to few of them, and another seed to others.
    first_step: usize,
    orders: u64,
}

impl Killer {
    /// One whose orders go into this folder.
    #[must_use]
    pub fn new(seed: u64, folder: PathBuf) -> Self {
        let first_step = usize::try_from(seed).unwrap_or_default().wrapping_mul(11) % STEPS.len();
        Self {
            state: seed,
            counts: BTreeMap::new(),
            incidents: Incidents::default(),
            folder,
            steps: vec![(0, 0); STEPS.len()],
            first_step,
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
            if number >= VICTIMS.len() && number % 2 == 0 && self.at_step(stack, http).await? {
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

    /// Has a program end at the step that was least often the last; false when it does not come there.
    async fn at_step(&mut self, stack: &mut Stack, http: &Client) -> Result<bool> {
        let turn = |index: usize| (self.first_step + index * 29) % STEPS.len();
        let Some(index) = (0..STEPS.len()).min_by_key(|index| (self.steps[*index], turn(*index))) else { return Ok(false) };
        let (step, time) = (&STEPS[index], 1 + self.below(2));
        self.orders += 1;
        self.steps[index].0 += 1;
        let file = steps::file(&self.folder, step.program);
        std::fs::write(&file, steps::order(self.orders, step, time))?;
        let is_there = ended_in_time(stack, step).await;
        std::fs::remove_file(&file)?;
        // It may have read the order just before it was taken away.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !is_there? && stack.program(step.program)?.ended()?.is_none() {
            return Ok(false);
        }
        self.steps[index].1 += 1;
        if step.program == "chat-service" {
            self.incidents.chat_ended();
        }
        *self.counts.entry(format!("{} at a step", step.program)).or_default() += 1;
        stack.program(step.program)?.restart(http).await.with_context(|| format!("{} after {}", step.program, step.name))?;
        Ok(true)
    }

    /// How often programs ended at each step; where none did, in how many tries.
    #[must_use]
    pub fn report(&self) -> Value {
        let row = |(step, (tries, ends)): (&Step, &(usize, usize))| {
            let said = if *ends == 0 { json!(format!("not reached in {tries}")) } else { json!(ends) };
            (format!("{} {}", step.program, step.name), said)
        };
        STEPS.iter().zip(&self.steps).map(row).collect::<serde_json::Map<_, _>>().into()
    }

    /// Every step that was waited for often enough was reached.
    ///
    /// # Errors
    /// When one was not, and the list does not say why.
    pub fn check(&self) -> Result<()> {
        for (step, (tries, ends)) in STEPS.iter().zip(&self.steps) {
            ensure!(*ends > 0 || *tries < ENOUGH || step.rare.is_some(), "{step:?} was never reached in {tries} tries");
        }
        Ok(())
    }
}

/// Whether a program ends at its step, and by nothing else.
async fn ended_in_time(stack: &mut Stack, step: &Step) -> Result<bool> {
    let (began, patience) = (Instant::now(), if step.is_slow() { LONG_PATIENCE } else { PATIENCE });
    while began.elapsed() < patience {
        if let Some(status) = stack.program(step.program)?.ended()? {
            ensure!(status.signal() == Some(ABORTED), "{} ended with {status} instead of at {}", step.program, step.name);
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(false)
}
