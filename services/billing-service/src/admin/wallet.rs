//! `billing-service wallet …`: always with a name and a reason, and safe to repeat under a key.

use std::io::{Write, stdout};

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use identity::OrganizationId;
use serde_json::json;

use crate::audit::Decision;
use crate::error::Error;
use crate::grants::{self, GrantId, Source, WalletChange};
use crate::ledger;
use crate::state::AppState;

/// Wallets and their credit.
#[derive(Debug, Clone, Subcommand)]
pub enum Wallet {
    /// Show balances and lots.
    Show {
        /// The organization (`org_…`).
        organization: OrganizationId,
    },
    /// Give credit.
    Grant {
        /// The organization (`org_…`).
        organization: OrganizationId,
        /// How much, in micro-units.
        #[arg(long)]
        amount_micros: i64,
        /// What for.
        #[arg(long, value_enum, default_value = "promotion")]
        source: Source,
        /// Lower burns first.
        #[arg(long)]
        priority: Option<i32>,
        /// Until before this instant (RFC 3339).
        #[arg(long)]
        expires_at: Option<DateTime<Utc>>,
        /// A model it may pay for, several times for several; all, if absent.
        #[arg(long = "model")]
        models: Vec<String>,
        /// A feature it may pay for, several times for several; all, if absent.
        #[arg(long = "feature")]
        features: Vec<String>,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
    /// Correct a balance, up or down; what the wallet does not have is owed.
    Adjust {
        /// The organization (`org_…`).
        organization: OrganizationId,
        /// How much, in micro-units; below zero takes.
        #[arg(long, allow_hyphen_values = true)]
        amount_micros: i64,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
    /// Take back what is left of a lot that was given.
    Revoke {
        /// The lot (`grt_…`).
        grant: GrantId,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
    /// Move credit to another organization; its lots keep what they are.
    Transfer {
        /// From this organization (`org_…`).
        from: OrganizationId,
        /// To that one.
        to: OrganizationId,
        /// How much, in micro-units.
        #[arg(long)]
        amount_micros: i64,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
    /// Bring lots in line with wallet and holds, for an organization that `ledger verify` names.
    Reconcile {
        /// The organization (`org_…`).
        organization: OrganizationId,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
    /// Say how far below zero requests may take what is available.
    Overdraft {
        /// The organization (`org_…`).
        organization: OrganizationId,
        /// How far, in micro-units.
        #[arg(long)]
        limit_micros: i64,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
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

/// Runs a command.
///
/// # Errors
/// Why it was refused; the database's.
pub async fn run(command: Wallet, state: &AppState) -> anyhow::Result<()> {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let (organization, change, decided) = match command {
        Wallet::Show { organization } => return show(state, organization).await,
        Wallet::Grant { organization, amount_micros, source, priority, expires_at, models, features, decided } => {
            let (models, features) = (some(models), some(features));
            let change = WalletChange::Grant { source, amount: amount_micros, priority, expires_at, models, features };
            (organization, change, decided)
        }
        Wallet::Adjust { organization, amount_micros, decided } => (organization, WalletChange::Adjust { amount: amount_micros }, decided),
        Wallet::Revoke { grant, decided } => {
            (grants::owner(state, grant).await.map_err(|error| told(&error))?, WalletChange::Revoke { grant }, decided)
        }
        Wallet::Transfer { from, to, amount_micros, decided } => (from, WalletChange::Transfer { to, amount: amount_micros }, decided),
        Wallet::Reconcile { organization, decided } => (organization, WalletChange::Reconcile, decided),
        Wallet::Overdraft { organization, limit_micros, decided } => {
            (organization, WalletChange::Overdraft { limit: limit_micros }, decided)
        }
    };
    let decision = Decision::new(state, decided.actor, decided.reason, decided.idempotency_key);
    let done = grants::decide(state, &decision, organization, &change).await.map_err(|error| told(&error))?;
    let how = if done.repeated { "was done before; then it was" } else { "done" };
    writeln!(stdout(), "{} {how}: {}", change.action(), done.after)?;
    Ok(())
}

async fn show(state: &AppState, organization: OrganizationId) -> anyhow::Result<()> {
    let balances = ledger::balances(&state.pool, organization).await?.ok_or_else(|| anyhow!("{organization} has no wallet"))?;
    let overdraft = grants::overdraft(&state.pool, organization).await?;
    let summary = json!({"wallet_micros": balances.wallet, "held_micros": balances.held, "debt_micros": balances.debt,
        "available_micros": balances.available(), "overdraft_limit_micros": overdraft});
    writeln!(stdout(), "{organization}: {summary}")?;
    for lot in grants::lots(&state.pool, organization, state.clock.now()).await.map_err(|error| told(&error))? {
        let line = json!({"source": lot.source.as_str(), "remaining_micros": lot.remaining, "priority": lot.priority,
            "expires_at": lot.expires_at, "models": lot.models, "features": lot.features});
        writeln!(stdout(), "{}: {line}", lot.id)?;
    }
    Ok(())
}

/// A refusal in words, for a terminal.
fn told(error: &Error) -> anyhow::Error {
    match error {
        Error::NotFound => anyhow!("there is nothing by that name, or nothing left of it"),
        Error::InsufficientFunds => anyhow!("the wallet does not reach, or what it has is held"),
        Error::Refused(problem) => {
            let fields: Vec<String> = problem.body().errors.iter().map(|error| format!("{} {}", error.field, error.rule)).collect();
            anyhow!("refused: {}", fields.join(", "))
        }
        error => anyhow!("{}", error.chain()),
    }
}
