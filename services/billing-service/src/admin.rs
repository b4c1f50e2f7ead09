//! Commands for operators.

mod catalog;
mod ledger;
mod rates;
mod usage;
mod wallet;

use std::io::{Write, stdout};

use chassis::redis::Redis;
use chassis::{Clock, Random, postgres, streams};
use clap::{Subcommand, ValueEnum};
use contracts::Shard;

use crate::config::BillingConfig;
use crate::state::AppState;
use crate::stripe;

pub use self::rates::Rates;
pub use self::usage::{Margin, Usage};

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
        Command::Catalog(command) => Box::pin(catalog::run(command, config)).await?,
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
        Command::Rates(command) => self::rates::run(command, &pool, &Clock::system()).await?,
        Command::Usage(command) => self::usage::run(command, &pool).await?,
        Command::Margin(query) => self::usage::margin(query, &pool).await?,
    }
    Ok(())
}
