//! `billing-service usage …` and `billing-service margin`

use std::io::{Write, stdout};
use std::pin::pin;

use anyhow::ensure;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use futures::TryStreamExt;
use identity::OrganizationId;
use sqlx::PgPool;

use super::{Decided, told};
use crate::margin::{self, By};
use crate::rollups;
use crate::state::AppState;
use crate::usage::{Format, chunks};

/// `billing-service usage …`
#[derive(Debug, Clone, Subcommand)]
pub enum Usage {
    /// Make the rollups of usage and of meters anew from the rows.
    Rebuild {
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
    /// Compare the rollups with the rows.
    Verify,
    /// Print rows, oldest first; of all organizations with our cost and what was written off.
    Export {
        /// How.
        #[arg(long, value_enum, default_value = "csv")]
        format: Format,
        /// Ended at or after this instant (RFC 3339).
        #[arg(long)]
        from: DateTime<Utc>,
        /// Ended before this instant (RFC 3339).
        #[arg(long)]
        to: DateTime<Utc>,
        /// Of this organization only, as it sees them.
        #[arg(long)]
        organization: Option<OrganizationId>,
    },
}

/// `billing-service margin`
#[derive(Debug, Clone, Args)]
pub struct Margin {
    /// What it is told apart by.
    #[arg(long, value_enum)]
    by: By,
    /// The first day (RFC 3339).
    #[arg(long)]
    from: DateTime<Utc>,
    /// The day after the last (RFC 3339).
    #[arg(long)]
    to: DateTime<Utc>,
}

/// Runs a command.
///
/// # Errors
/// Differences; the database's.
pub async fn run(command: Usage, state: &AppState) -> anyhow::Result<()> {
    match command {
        Usage::Rebuild { decided } => {
            rollups::rebuild(state, &decided.on(state)).await.map_err(|error| told(&error))?;
            writeln!(stdout(), "the rollups are made anew")?;
        }
        Usage::Verify => {
            let differences = rollups::differences(&state.pool).await?;
            ensure!(differences.is_empty(), "the rollups differ from the rows:\n  {}", differences.join("\n  "));
            writeln!(stdout(), "the rollups are equal to the rows")?;
        }
        Usage::Export { format, from, to, organization } => {
            let mut rows = pin!(chunks(state.pool.clone(), organization, from, to, format));
            while let Some(chunk) = rows.try_next().await? {
                stdout().write_all(&chunk)?;
            }
        }
    }
    Ok(())
}

/// Prints margins, the worst first.
///
/// # Errors
/// The database's.
pub async fn margin(Margin { by, from, to }: Margin, pool: &PgPool) -> anyhow::Result<()> {
    for row in margin::report(pool, by, from, to).await? {
        let (requests, price, cost, written_off) = (row.requests, row.price_micros, row.cost_micros, row.written_off_micros);
        writeln!(
            stdout(),
            "{} {}: margin {} (price {price}, cost {cost}, {requests} requests, written off {written_off})",
            row.value,
            row.currency,
            row.margin_micros
        )?;
    }
    Ok(())
}
