//! What operators do: in the terminal, and by HTTP with the same verbs ([`api`]). Both call the same functions, with a name and a reason,
//! which are logged in the transaction of the change [B-78].

pub mod api;
mod catalog;
mod ledger;
pub mod meters;
pub mod meters_api;
mod rates;
pub mod rates_api;
pub mod reconcile;
pub mod reconcile_api;
mod replay;
mod subscriptions;
pub mod subscriptions_api;
mod usage;
pub mod usage_api;
mod wallet;

use std::io::{Write, stdout};

use anyhow::anyhow;
use chassis::redis::Redis;
use chassis::{Clock, Random, postgres};
use clap::{Args, Subcommand};
use identity::OrganizationId;
use serde_json::json;

use crate::audit::{self, AuditQuery, Decision};
use crate::config::BillingConfig;
use crate::error::Error;
use crate::state::AppState;
use crate::{budgets, margin, operations};

pub use self::api::{SCOPE_READ, SCOPE_WRITE};
pub use self::rates::Rates;
pub use self::reconcile::Reconcile;
pub use self::replay::{Events, Stream};
pub use self::subscriptions::Subscriptions;
pub use self::usage::{Margin, Usage};

pub use ledger::Ledger;
pub use wallet::Wallet;

/// `billing-service …`
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// How things are: every measure with its limit. Ends with failure when one is beyond it, and says what to read then.
    Status {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// What is sold.
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// The ledger.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Wallets and their credit.
    #[command(subcommand)]
    Wallet(Wallet),
    /// What customers are subscribed to.
    #[command(subcommand)]
    Subscriptions(Subscriptions),
    /// Rate cards.
    #[command(subcommand)]
    Rates(Rates),
    /// Usage.
    #[command(subcommand)]
    Usage(Usage),
    /// What was earned and what it cost.
    Margin(Margin),
    /// What was sold below its cost on a day, the newest day first.
    MarginAlerts {
        /// So many at most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// What an organization wants to spend at most.
    Budgets {
        /// The organization (`org_…`).
        organization: OrganizationId,
    },
    /// What operators decided, newest first.
    Audit {
        /// Of this organization only.
        #[arg(long)]
        organization: Option<OrganizationId>,
        /// So many at most.
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
    /// What could not be consumed from the streams of other services.
    #[command(subcommand)]
    Streams(Streams),
    /// Stripe: events, comparisons, meters.
    #[command(subcommand)]
    Stripe(Stripe),
}

/// Who decided, and why.
#[derive(Debug, Clone, Args)]
pub struct Decided {
    /// Who decides this.
    #[arg(long)]
    actor: String,
    /// Why.
    #[arg(long)]
    reason: String,
    /// Makes a repetition the same command: done once.
    #[arg(long)]
    idempotency_key: Option<String>,
}

impl Decided {
    /// As a decision.
    fn on(self, state: &AppState) -> Decision {
        Decision::new(state, self.actor, self.reason, self.idempotency_key)
    }
}

/// `billing-service streams …`
#[derive(Debug, Clone, Subcommand)]
pub enum Streams {
    /// Bring back what was rejected too often and set aside, once its cause is mended.
    Replay {
        /// Which stream.
        stream: Stream,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
}

/// `billing-service stripe …`
#[derive(Debug, Clone, Subcommand)]
pub enum Stripe {
    /// Put events back that failed too often and were set aside: one, or those that came within a time. With `--intents` what Stripe refused to
    /// do for us, and that was set aside: one, or what was set aside within a time.
    Replay {
        /// Which.
        #[command(flatten)]
        events: Events,
        /// Not events, but what we want of Stripe.
        #[arg(long)]
        intents: bool,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
    /// Compare our books with Stripe's, and say where they differ; ends with an error when that matters.
    Reconcile(Reconcile),
    /// Usage that is reported to Stripe's meters.
    #[command(subcommand)]
    Meters(self::meters::Meters),
}

/// Runs a command.
///
/// # Errors
/// What is wrong with the ledger or the file; the database's.
pub async fn run(command: Command, config: BillingConfig) -> anyhow::Result<()> {
    // One command beside the services, which need the others: it asks a few things at once at most.
    let few = postgres::PostgresConfig { max_connections: config.postgres.max_connections.min(4), ..config.postgres.clone() };
    let pool = postgres::connect(&few, "billing-service")?;
    let redis = Redis::connect(&config.redis)?;
    let state = AppState::new(config, pool, redis, Clock::system(), Random::system())?;
    match command {
        Command::Status { json } => status(&state, json).await?,
        Command::Catalog(command) => Box::pin(catalog::run(command, &state)).await?,
        Command::Ledger(command) => ledger::run(command, &state).await?,
        Command::Wallet(command) => wallet::run(command, &state).await?,
        Command::Subscriptions(command) => Box::pin(self::subscriptions::run(command, &state)).await?,
        Command::Streams(Streams::Replay { stream, decided }) => {
            let replayed = replay::messages(&state, &decided.on(&state), stream).await.map_err(|error| told(&error))?;
            writeln!(stdout(), "{replayed} messages are back")?;
        }
        Command::Stripe(Stripe::Replay { events, intents: false, decided }) => {
            let replayed = replay::events(&state, &decided.on(&state), &events).await.map_err(|error| told(&error))?;
            anyhow::ensure!(!replayed.is_empty(), "no such event was set aside");
            writeln!(stdout(), "will be handled again: {}", replayed.join(", "))?;
        }
        Command::Stripe(Stripe::Replay { events, intents: true, decided }) => {
            let intents = events.of_intents().map_err(|error| told(&error))?;
            let replayed = replay::intents(&state, &decided.on(&state), &intents).await.map_err(|error| told(&error))?;
            anyhow::ensure!(!replayed.is_empty(), "no such intent was set aside");
            writeln!(stdout(), "will be sent again: {}", replayed.join(", "))?;
        }
        Command::Rates(command) => self::rates::run(command, &state).await?,
        Command::Usage(command) => self::usage::run(command, &state).await?,
        Command::Margin(query) => self::usage::margin(query, &state.pool).await?,
        Command::MarginAlerts { limit } => {
            for alert in margin::newest(&state.pool, limit).await? {
                writeln!(stdout(), "{}", json!(alert))?;
            }
        }
        Command::Budgets { organization } => {
            for budget in budgets::store::list(&mut *state.pool.acquire().await?, organization).await? {
                writeln!(stdout(), "{}", json!(budget))?;
            }
        }
        Command::Audit { organization, limit } => {
            let query = AuditQuery { organization_id: organization, limit: Some(limit), ..AuditQuery::default() };
            for row in audit::list(&state.pool, &query).await? {
                writeln!(stdout(), "{}", json!(row))?;
            }
        }
        Command::Stripe(Stripe::Meters(command)) => self::meters::run(command, &state).await?,
        Command::Stripe(Stripe::Reconcile(command)) => Box::pin(self::reconcile::run(command, &state)).await?,
    }
    Ok(())
}

async fn status(state: &AppState, as_json: bool) -> anyhow::Result<()> {
    let status = operations::status(state).await.map_err(|error| told(&error))?;
    let text = if as_json { json!(status).to_string() + "\n" } else { status.table() };
    stdout().write_all(text.as_bytes())?;
    status.judged()
}

/// A refusal in words, for a terminal.
fn told(error: &Error) -> anyhow::Error {
    match error {
        Error::NotFound => anyhow!("there is nothing by that name, or nothing left of it"),
        Error::InsufficientFunds => anyhow!("the wallet does not reach, or what it has is held"),
        Error::Refused(problem) => {
            let body = problem.body();
            let fields: Vec<String> = body.errors.iter().map(|error| format!("{} {}", error.field, error.rule)).collect();
            let why = if fields.is_empty() { body.detail.as_ref().unwrap_or(&body.title).clone() } else { fields.join(", ") };
            anyhow!("refused: {why}")
        }
        error => anyhow!("{}", error.chain()),
    }
}
