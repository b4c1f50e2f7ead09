//! `billing-service admin rates …`

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use chassis::Clock;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Subcommand;
use sqlx::PgPool;

use crate::rates;

/// `billing-service admin rates …`
#[derive(Debug, Clone, Subcommand)]
pub enum Rates {
    /// Import a price list: the JSON that gateways share (model to per-token prices in USD), or YAML as `rates export` writes it.
    Import {
        /// The file.
        file: PathBuf,
        /// Percent on top of the provider's price, where the list does not say.
        #[arg(long, default_value_t = 20)]
        markup_percent: i64,
        /// When it takes effect (RFC 3339); now, if absent.
        #[arg(long)]
        from: Option<DateTime<Utc>>,
        /// Say what would change and change nothing.
        #[arg(long)]
        dry_run: bool,
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
pub async fn run(command: Rates, pool: &PgPool, clock: &Clock) -> anyhow::Result<()> {
    match command {
        Rates::Import { file, markup_percent, from, dry_run } => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let now = clock.now();
            let from = from.unwrap_or(now);
            // What was used is priced already: a list cannot change the past.
            ensure!(from >= now - TimeDelta::minutes(1), "--from must not be in the past");
            for change in rates::import(pool, &text, markup_percent, from, dry_run).await? {
                writeln!(stdout(), "{change}")?;
            }
            writeln!(stdout(), "{}", if dry_run { "nothing was changed" } else { "imported" })?;
        }
        Rates::Export { at } => {
            let (text, left_out) = rates::export(pool, at.unwrap_or_else(|| clock.now())).await?;
            ensure!(left_out.is_empty(), "cards of another currency cannot be in the same file: {}", left_out.join(", "));
            stdout().write_all(text.as_bytes())?;
        }
        Rates::Show { model } => {
            let lines = rates::show(pool, &model).await?;
            ensure!(!lines.is_empty(), "{model} has no card");
            writeln!(stdout(), "{}", lines.join("\n"))?;
        }
    }
    Ok(())
}
