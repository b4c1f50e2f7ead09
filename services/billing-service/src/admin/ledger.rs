//! `billing-service ledger …`

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::pin::pin;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use futures::TryStreamExt;

use super::told;
use crate::ledger::trial_balance::trial_balance;
use crate::ledger::{checks, export};
use crate::state::AppState;

/// The ledger.
#[derive(Debug, Clone, Subcommand)]
pub enum Ledger {
    /// Check the chain of seals, that every transaction sums to zero, every balance equals its sum, every hold and every lot is accounted
    /// for, and revenue equals usage; says which row is wrong.
    Verify {
        /// The hash of a seal that was kept somewhere else (hexadecimal): it must still be in the chain.
        #[arg(long)]
        expect: Option<String>,
    },
    /// Write what every account had as an instant began, and what of customers' credit came from where (deferred revenue), as CSV.
    TrialBalance {
        /// The instant (RFC 3339); now, if absent.
        #[arg(long)]
        at: Option<DateTime<Utc>>,
    },
    /// Write the journal of a period as CSV, one balanced transaction after the other.
    Export {
        /// From this instant (RFC 3339).
        #[arg(long)]
        from: DateTime<Utc>,
        /// Until before this instant.
        #[arg(long)]
        to: DateTime<Utc>,
        /// Where to; standard output, if absent.
        #[arg(long)]
        output: Option<PathBuf>,
    },
}

/// Runs a command.
///
/// # Errors
/// What is wrong with the ledger; the database's.
pub async fn run(command: Ledger, state: &AppState) -> anyhow::Result<()> {
    let pool = &state.pool;
    match command {
        Ledger::Verify { expect } => verify(state, expect).await,
        Ledger::TrialBalance { at } => {
            let at = at.unwrap_or_else(|| state.clock.now());
            let balance = trial_balance(pool, at).await.map_err(|error| told(&error))?;
            Ok(stdout().write_all(balance.csv().as_bytes())?)
        }
        Ledger::Export { from, to, output } => {
            let mut out: Box<dyn Write + Send> = match output {
                Some(path) => Box::new(std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?),
                None => Box::new(stdout()),
            };
            let mut chunks = pin!(export::chunks(pool.clone(), from, to));
            while let Some(chunk) = chunks.try_next().await? {
                out.write_all(&chunk)?;
            }
            Ok(out.flush()?)
        }
    }
}

async fn verify(state: &AppState, expect: Option<String>) -> anyhow::Result<()> {
    let expected = expect.as_deref().map(bytes).transpose()?;
    let summary = checks::check(state, &state.pool, expected.as_deref(), |line| {
        // Told at once: there may be more of it than memory.
        let _ = writeln!(stdout(), "{line}");
    })
    .await
    .map_err(|error| told(&error))?;
    anyhow::ensure!(summary.differences == 0, "the ledger has {} differences", summary.differences);
    anyhow::ensure!(expected.is_none() || summary.has_expected, "the seal that was kept is not in the chain: it was made anew");
    writeln!(stdout(), "the ledger is clean: {summary}")?;
    Ok(())
}

/// The hash of a seal, from its hexadecimal digits.
///
/// # Errors
/// When it is none.
pub fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(hex.len() == 64 && hex.is_ascii(), "a seal's hash has 64 hexadecimal digits");
    let pairs = (0..32).map(|index| u8::from_str_radix(&hex[index * 2..index * 2 + 2], 16));
    pairs.collect::<Result<_, _>>().context("a seal's hash has 64 hexadecimal digits")
}
