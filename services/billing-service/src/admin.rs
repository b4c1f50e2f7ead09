//! Commands for operators.

mod rates;
mod usage;

use std::io::{Write, stdout};

use chassis::redis::Redis;
use chassis::{Clock, postgres, streams};
use clap::{Subcommand, ValueEnum};

use crate::config::BillingConfig;
use crate::{ledger, stripe};

pub use self::rates::Rates;
pub use self::usage::{Margin, Usage};

/// `billing-service admin …`
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// The ledger.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Rate cards.
    #[command(subcommand)]
    Rates(Rates),
    /// Usage.
    #[command(subcommand)]
    Usage(Usage),
    /// What was earned and what it cost.
    Margin(Margin),
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
        Command::Rates(command) => self::rates::run(command, &pool, &Clock::system()).await?,
        Command::Usage(command) => self::usage::run(command, &pool).await?,
        Command::Margin(query) => self::usage::margin(query, &pool).await?,
    }
    Ok(())
}
