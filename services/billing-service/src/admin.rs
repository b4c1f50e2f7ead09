//! Commands for operators.

mod catalog;
mod ledger;
mod wallet;

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::Context;
use chassis::redis::Redis;
use chassis::{Clock, Random, postgres, streams};
use chrono::{DateTime, Utc};
use clap::{Subcommand, ValueEnum};
use contracts::Shard;

use crate::config::BillingConfig;
use crate::state::AppState;
use crate::{rates, stripe};

pub use ledger::Ledger;
pub use wallet::Wallet;

/// `billing-service …`
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// What is sold.
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// The ledger.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Wallets and their credit.
    #[command(subcommand)]
    Wallet(Wallet),
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

/// `billing-service rates …`
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

/// `billing-service streams …`
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

/// `billing-service stripe …`
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
    let pool = postgres::connect(&config.postgres, "billing-service")?;
    match command {
        Command::Catalog(command) => catalog::run(command, config).await?,
        Command::Ledger(command) => ledger::run(command, &pool).await?,
        Command::Wallet(command) => {
            let redis = Redis::connect(&config.redis)?;
            wallet::run(command, &AppState::new(config, pool, redis, Clock::system(), Random::system())?).await?;
        }
        Command::Streams(Streams::Replay { stream }) => {
            let redis = Redis::connect(&config.redis)?;
            let names = match stream {
                Stream::Usage => Shard::all().map(Shard::usage_stream).collect(),
                Stream::Auth => vec![contracts::events::AUTH_STREAM.to_owned()],
            };
            for name in names {
                let replayed = streams::replay(&redis, &name).await?;
                if replayed > 0 || stream == Stream::Auth {
                    writeln!(stdout(), "{replayed} messages are back on {name}")?;
                }
            }
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
