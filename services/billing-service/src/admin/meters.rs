//! `billing-service stripe meters …`: what of usage is kept at Stripe's meters too.

use std::io::{Write, stdout};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Decided, told};
use crate::metering::Aggregation;
use crate::state::AppState;
use crate::stripe::meters::mirrors::{self, NewMirror, Source};
use crate::stripe::meters::parked;

/// What of usage is kept at Stripe's meters too.
#[derive(Debug, Clone, Subcommand)]
pub enum Meters {
    /// Show what is kept, and how many reports wait or were set aside.
    List,
    /// Report something from now on.
    Add(Add),
    /// Report nothing more of what is used from the next hour on.
    Stop {
        /// The name of its events at Stripe.
        event_name: String,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
    /// Show reports that Stripe did not want.
    Parked,
    /// Send reports again that were set aside, once the reason is mended: these, or all that are known not to be there.
    Replay {
        /// Which (`trivet-…`); if none is named, all but unclear ones.
        identifiers: Vec<String>,
        /// Date them now, where they are too old for Stripe: they count in today's period there. If none is named, only those.
        #[arg(long)]
        dated_now: bool,
        /// Who and why.
        #[command(flatten)]
        decided: Decided,
    },
}

/// What is to be reported.
#[derive(Debug, Clone, Args)]
pub struct Add {
    /// The name of its events at Stripe; the meter there is made if there is none.
    event_name: String,
    #[command(flatten)]
    of: Of,
    /// How the meter makes one of its values; only with `--meter`.
    #[arg(long, value_enum, default_value = "sum", requires = "meter")]
    aggregation: Aggregation,
    /// Digits after the point that count: 3 reports thousandths.
    #[arg(long, default_value_t = 0)]
    decimals: i32,
    /// Also what was used since (RFC 3339), 34 days back at most.
    #[arg(long)]
    since: Option<DateTime<Utc>>,
    /// Who and why.
    #[command(flatten)]
    decided: Decided,
}

/// Of what.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct Of {
    /// Each organization's meter of this name.
    #[arg(long, id = "meter")]
    meter: Option<String>,
    /// What requests were sold for, in micro-units of this currency.
    #[arg(long, value_name = "CURRENCY")]
    chat_usage: Option<String>,
    /// What requests took beyond the wallet, in micro-units of this currency.
    #[arg(long, value_name = "CURRENCY")]
    chat_overage: Option<String>,
}

/// Runs a command.
///
/// # Errors
/// A refusal; the database's.
pub async fn run(command: Meters, state: &AppState) -> anyhow::Result<()> {
    match command {
        Meters::List => {
            for mirror in mirrors::list(state).await? {
                writeln!(stdout(), "{}", json!(mirror))?;
            }
        }
        Meters::Add(add) => self::add(add, state).await?,
        Meters::Stop { event_name, decided } => {
            mirrors::stop(state, &decided.on(state), &event_name).await.map_err(|error| told(&error))?;
            writeln!(stdout(), "what is used from the next hour on is not reported")?;
        }
        Meters::Parked => {
            for report in parked::list(state).await? {
                writeln!(stdout(), "{}", json!(report))?;
            }
        }
        Meters::Replay { identifiers, dated_now, decided } => {
            let replayed = parked::replay(state, &decided.on(state), &identifiers, dated_now).await.map_err(|error| told(&error))?;
            anyhow::ensure!(!replayed.is_empty(), "no such report was set aside");
            writeln!(stdout(), "will be sent again: {}", replayed.join(", "))?;
        }
    }
    Ok(())
}

async fn add(add: Add, state: &AppState) -> anyhow::Result<()> {
    let source = match add.of {
        Of { meter: Some(meter_name), .. } => Source::Meter { meter_name, aggregation: add.aggregation },
        Of { chat_usage: Some(currency), .. } => Source::ChatUsage { currency },
        Of { chat_overage, .. } => Source::ChatOverage { currency: chat_overage.unwrap_or_default() },
    };
    let new = NewMirror { event_name: add.event_name, source, decimals: add.decimals, since: add.since };
    mirrors::add(state, &add.decided.on(state), &new).await.map_err(|error| told(&error))?;
    writeln!(stdout(), "is reported from now on")?;
    Ok(())
}
