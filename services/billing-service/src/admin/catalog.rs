//! `billing-service catalog …`: what is sold, as code.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;

use super::{Decided, told};
use crate::catalog::{self, Catalog, Code, apply};
use crate::state::AppState;
use crate::subscriptions::moving;

/// `billing-service catalog …`
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Say what applying the file would change, and change nothing.
    Plan {
        /// The file.
        file: PathBuf,
    },
    /// Apply the file on top of the catalogue that `plan` saw.
    Apply {
        /// The file.
        file: PathBuf,
        /// The digest that `plan` printed.
        #[arg(long)]
        planned_on: String,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
    /// Move who is on an older version of a plan to the one that is sold now, when their period ends.
    Move {
        /// The plan's code.
        plan: Code,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
}

/// Runs a command.
///
/// # Errors
/// What is wrong with the file; why it is not applied; the database's.
pub async fn run(command: Command, state: &AppState) -> anyhow::Result<()> {
    match command {
        Command::Plan { file } => {
            let planned = apply::plan(state, &read(&file)?).await?;
            writeln!(stdout(), "{}\n\nto apply: --planned-on {}", planned.text, planned.stored)?;
        }
        Command::Apply { file, planned_on, decided } => {
            let applied = apply::apply(state, &read(&file)?, &planned_on, &decided.on(state)).await?;
            writeln!(stdout(), "{}\n\nthe catalogue is at version {}", applied.text, applied.version)?;
        }
        Command::Move { plan, decided } => {
            let decided = moving::decide(state, decided.on(state), &plan).await.map_err(|error| told(&error))?;
            let moved = decided.carry_out(state).await.map_err(|error| told(&error))?;
            writeln!(stdout(), "{} move when their period ends, {} stay", moved.moving, moved.staying)?;
        }
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Catalog> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(catalog::parse(&text)?)
}
