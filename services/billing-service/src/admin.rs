//! Commands for operators.

mod catalog;

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::Context;
use chassis::redis::Redis;
use chassis::{Clock, postgres, streams};
use chrono::{DateTime, Utc};
use clap::{Subcommand, ValueEnum};

use crate::config::BillingConfig;
use crate::{ledger, rates, stripe};

/// `billing-service admin …`
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// What is sold.
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// The ledger.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Rate cards.
    #[command(subcommand)]
    Rates(Rates),
    /// What could not be consumed from the streams of other services.
    #[command(subcommand)]
    Streams(Streams),
    /// Events of Stripe.
    #[command(subcommand)]
    Stripe(Stripe),
}

/// `billing-service admin ledger …`
#[derive(Debug, Clone, Subcommand)]
pub enum Ledger {
    /// Check that every transaction sums to zero, every balance equals its sum, every hold is somebody's, and revenue equals usage.
    Verify,
}

/// `billing-service admin rates …`
#[derive(Debug, Clone, Subcommand)]
pub enum Rates {
    /// Import a price list (JSON, model to per-token prices in USD).
    Import {
        /// The file.
        file: PathBuf,
        /// Percent on top of the provider's price.
        #[arg(long, default_value_t = 20)]
        markup_percent: i64,
        /// When it takes effect (RFC 3339); now, if absent.
        #[arg(long)]
        from: Option<DateTime<Utc>>,
        /// Say what would change and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// `billing-service admin streams …`
#[derive(Debug, Clone, Subcommand)]
pub enum Streams {
    /// Bring back what was rejected too often and set aside, once its cause is mended.
    Replay {
        /// Which stream.
        stream: Stream,
    },
}

/// A stream that billing-service consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stream {
    /// What requests used, from chat-service.
    Usage,
    /// Organizations that were made, from auth-service.
    Auth,
}

/// `billing-service admin stripe …`
#[derive(Debug, Clone, Subcommand)]
pub enum Stripe {
    /// Put an event back that failed too often and was set aside.
    Replay {
        /// The event's id (`evt_…`).
        event_id: String,
    },
}

/// Runs a command.
///
/// # Errors
/// What is wrong with the ledger or the file; the database's.
pub async fn run(command: Command, config: BillingConfig) -> anyhow::Result<()> {
    let pool = postgres::connect(&config.postgres, "billing-service admin")?;
    match command {
        Command::Catalog(command) => catalog::run(command, config).await?,
        Command::Ledger(Ledger::Verify) => {
            let differences = ledger::verify::differences(&pool).await?;
            anyhow::ensure!(differences.is_empty(), "the ledger has differences:\n  {}", differences.join("\n  "));
            writeln!(stdout(), "the ledger is clean")?;
        }
        Command::Streams(Streams::Replay { stream }) => {
            let redis = Redis::connect(&config.redis)?;
            let name = match stream {
                Stream::Usage => contracts::usage::STREAM,
                Stream::Auth => contracts::events::AUTH_STREAM,
            };
            writeln!(stdout(), "{} messages are back on {name}", streams::replay(&redis, name).await?)?;
        }
        Command::Stripe(Stripe::Replay { event_id }) => {
            let replayed = stripe::worker::replay(&pool, &event_id, Clock::system().now()).await?;
            anyhow::ensure!(replayed, "no event {event_id} was set aside");
            writeln!(stdout(), "{event_id} will be handled again")?;
        }
        Command::Rates(Rates::Import { file, markup_percent, from, dry_run }) => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let from = from.unwrap_or_else(|| Clock::system().now());
            for change in rates::import(&pool, &text, markup_percent, from, dry_run).await? {
                writeln!(
                    stdout(),
                    "{}: input {} output {} micro-USD for a million tokens (cost)",
                    change.model,
                    change.cost_input,
                    change.cost_output
                )?;
            }
            writeln!(stdout(), "{}", if dry_run { "nothing was changed" } else { "imported" })?;
        }
    }
    Ok(())
}
