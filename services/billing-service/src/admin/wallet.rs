//! `billing-service wallet …`: always with a name and a reason, and safe to repeat under a key.

use std::io::{Write, stdout};

use chrono::{DateTime, Utc};
use clap::Subcommand;
use contracts::RequestId;
use identity::OrganizationId;
use serde::Serialize;
use serde_json::json;

use super::{Decided, told};
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
    /// Give back what a request was charged, whole or in part, to the lots that paid for it; once for each request.
    RefundUsage {
        /// The organization (`org_…`).
        organization: OrganizationId,
        /// The request (`req_…`).
        #[arg(long)]
        request: RequestId,
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
        Wallet::RefundUsage { organization, request, amount_micros, decided } => {
            (organization, WalletChange::RefundUsage { request, amount: amount_micros }, decided)
        }
        Wallet::Reconcile { organization, decided } => (organization, WalletChange::Reconcile, decided),
        Wallet::Overdraft { organization, limit_micros, decided } => {
            (organization, WalletChange::Overdraft { limit: limit_micros }, decided)
        }
    };
    let done = grants::decide(state, &decided.on(state), organization, &change).await.map_err(|error| told(&error))?;
    let how = if done.repeated { "was done before; then it was" } else { "done" };
    writeln!(stdout(), "{} {how}: {}", change.action(), done.after)?;
    Ok(())
}

async fn show(state: &AppState, organization: OrganizationId) -> anyhow::Result<()> {
    let shown = view(state, organization).await.map_err(|error| told(&error))?;
    writeln!(stdout(), "{organization}: {}", json!(shown.balances))?;
    for lot in shown.lots {
        writeln!(stdout(), "{}: {}", lot.id, json!(lot))?;
    }
    Ok(())
}

/// A wallet.
#[derive(Debug, Serialize)]
pub struct WalletView {
    /// Its sums.
    balances: Sums,
    /// Its lots, in the order in which they burn.
    lots: Vec<LotView>,
}

/// What a wallet has, in micro-units.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the answer say the unit")]
struct Sums {
    wallet_micros: i64,
    held_micros: i64,
    debt_micros: i64,
    available_micros: i64,
    overdraft_limit_micros: i64,
}

/// A lot with something left.
#[derive(Debug, Serialize)]
struct LotView {
    id: GrantId,
    source: Source,
    remaining_micros: i64,
    priority: i32,
    expires_at: Option<DateTime<Utc>>,
    models: Option<Vec<String>>,
    features: Option<Vec<String>>,
}

/// The wallet of an organization, as operators see it.
///
/// # Errors
/// [`Error::NotFound`]; the database's.
pub async fn view(state: &AppState, organization: OrganizationId) -> Result<WalletView, Error> {
    let balances = ledger::balances(&state.pool, organization).await?.ok_or(Error::NotFound)?;
    let balances = Sums {
        wallet_micros: balances.wallet,
        held_micros: balances.held,
        debt_micros: balances.debt,
        available_micros: balances.available(),
        overdraft_limit_micros: grants::overdraft(&state.pool, organization).await?,
    };
    let lots = grants::lots(&state.pool, organization, state.clock.now()).await?.into_iter().map(|lot| LotView {
        id: lot.id,
        source: lot.source,
        remaining_micros: lot.remaining,
        priority: lot.priority,
        expires_at: lot.expires_at,
        models: lot.models,
        features: lot.features,
    });
    Ok(WalletView { balances, lots: lots.collect() })
}
