//! `billing-service subscriptions …`: what support does for a customer, always with a name and a reason.

use std::io::{Write, stdout};

use clap::{Args, Subcommand};
use identity::OrganizationId;
use serde_json::json;

use super::{Decided, told};
use crate::catalog::Interval;
use crate::state::AppState;
use crate::subscriptions::SubscriptionId;
use crate::subscriptions::changes::Change;
use crate::subscriptions::operator::{self, Wish};

/// Subscriptions.
#[derive(Debug, Clone, Subcommand)]
pub enum Subscriptions {
    /// Show an organization's, the newest first, with what is not paid.
    List {
        /// The organization (`org_…`).
        organization: OrganizationId,
    },
    /// End one when its period does.
    Cancel {
        /// Now, and not when the period ends: access is gone, and nothing is given back by that.
        #[arg(long)]
        at_once: bool,
        /// Which, who and why.
        #[command(flatten)]
        on: On,
    },
    /// Do not end it after all.
    Uncancel {
        /// Which, who and why.
        #[command(flatten)]
        on: On,
    },
    /// No access, and nothing new to pay.
    Pause {
        /// Which, who and why.
        #[command(flatten)]
        on: On,
    },
    /// Go on.
    Resume {
        /// Which, who and why.
        #[command(flatten)]
        on: On,
    },
    /// Another plan: at once when it costs at least as much, else when the period ends.
    Plan {
        /// The plan's code.
        #[arg(long)]
        plan: String,
        /// How often to pay.
        #[arg(long, value_enum)]
        interval: Interval,
        /// How many seats.
        #[arg(long)]
        seats: u32,
        /// Which, who and why.
        #[command(flatten)]
        on: On,
    },
    /// Another number of seats: at once when it is more, else when the period ends.
    Seats {
        /// How many.
        #[arg(long)]
        seats: u32,
        /// Which, who and why.
        #[command(flatten)]
        on: On,
    },
    /// A coupon for the charges to come, in place of the one that is there.
    Coupon {
        /// Its code.
        #[arg(long)]
        coupon: String,
        /// Which, who and why.
        #[command(flatten)]
        on: On,
    },
}

/// Which subscription, who decides it and why.
#[derive(Debug, Clone, Args)]
pub struct On {
    /// The organization (`org_…`).
    organization: OrganizationId,
    /// Its subscription (`sub_…`).
    subscription: SubscriptionId,
    #[command(flatten)]
    decided: Decided,
}

/// Runs a command.
///
/// # Errors
/// Why it was refused; the database's.
pub async fn run(command: Subscriptions, state: &AppState) -> anyhow::Result<()> {
    let (on, change, at_once) = match command {
        Subscriptions::List { organization } => return list(state, organization).await,
        Subscriptions::Cancel { at_once, on } => (on, Change::Cancel, at_once),
        Subscriptions::Uncancel { on } => (on, Change::Uncancel, false),
        Subscriptions::Pause { on } => (on, Change::Pause, false),
        Subscriptions::Resume { on } => (on, Change::Resume, false),
        Subscriptions::Plan { plan, interval, seats, on } => (on, Change::Plan { plan, interval, seats }, false),
        Subscriptions::Seats { seats, on } => (on, Change::Seats { seats }, false),
        Subscriptions::Coupon { coupon, on } => (on, Change::Coupon { coupon }, false),
    };
    let On { organization, subscription, decided } = on;
    let wish = Wish { subscription_id: subscription, change, at_once };
    let done = operator::decide(state, &decided.on(state), organization, &wish).await.map_err(|error| told(&error))?;
    let how = if done.repeated { "was changed before; then it was" } else { "is now" };
    writeln!(stdout(), "{subscription} {how}: {}", done.after)?;
    Ok(())
}

async fn list(state: &AppState, organization: OrganizationId) -> anyhow::Result<()> {
    for subscription in operator::list(state, organization).await.map_err(|error| told(&error))? {
        writeln!(stdout(), "{}", json!(subscription))?;
    }
    Ok(())
}
