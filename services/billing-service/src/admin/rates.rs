//! `billing-service rates …`

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use clap::Subcommand;

use super::told;
use crate::audit::Decision;
use crate::rates;
use crate::state::AppState;

/// Percent on top of the provider's price, where nothing is said.
pub const USUAL_MARKUP: i64 = 20;

/// `billing-service rates …`
#[derive(Debug, Clone, Subcommand)]
pub enum Rates {
    /// Import a price list: the JSON that gateways share (model to per-token prices in USD), or YAML as `rates export` writes it.
    Import {
        /// The file.
        file: PathBuf,
        /// Percent on top of the provider's price, where the list does not say.
        #[arg(long, default_value_t = USUAL_MARKUP)]
        markup_percent: i64,
        /// When it takes effect (RFC 3339); now, if absent.
        #[arg(long)]
        from: Option<DateTime<Utc>>,
        /// Say what would change and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Who decides this; nobody for a dry run.
        #[arg(long, required_unless_present = "dry_run")]
        actor: Option<String>,
        /// Why.
        #[arg(long, required_unless_present = "dry_run")]
        reason: Option<String>,
        /// Makes a repetition the same command: done once.
        #[arg(long)]
        idempotency_key: Option<String>,
    },
    /// Print the cards that are valid, as YAML that an import reads.
    Export {
        /// When (RFC 3339); now, if absent.
        #[arg(long)]
        at: Option<DateTime<Utc>>,
    },
    /// Print every card of a model.
    Show {
        /// The model.
        model: String,
    },
}

/// Runs a command.
///
/// # Errors
/// What is wrong with the file; the database's.
pub async fn run(command: Rates, state: &AppState) -> anyhow::Result<()> {
    match command {
        Rates::Import { file, markup_percent, from, dry_run, actor, reason, idempotency_key } => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let who = actor.zip(reason).filter(|_| !dry_run);
            let decision = who.map(|(actor, reason)| Decision::new(state, actor, reason, idempotency_key));
            let list = rates::List { text: &text, markup_percent, from };
            for change in rates::import(state, &list, decision.as_ref()).await.map_err(|error| match error {
                rates::ImportError::Failed(error) => told(&error),
                refused @ rates::ImportError::Refused(_) => refused.into(),
            })? {
                writeln!(stdout(), "{change}")?;
            }
            writeln!(stdout(), "{}", if dry_run { "nothing was changed" } else { "imported" })?;
        }
        Rates::Export { at } => {
            let (text, left_out) = rates::export(&state.pool, at.unwrap_or_else(|| state.clock.now())).await?;
            ensure!(left_out.is_empty(), "cards of another currency cannot be in the same file: {}", left_out.join(", "));
            stdout().write_all(text.as_bytes())?;
        }
        Rates::Show { model } => {
            let lines = rates::show(&state.pool, &model).await?;
            ensure!(!lines.is_empty(), "{model} has no card");
            writeln!(stdout(), "{}", lines.join("\n"))?;
        }
    }
    Ok(())
}
