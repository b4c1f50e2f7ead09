//! What failed too often and was set aside is brought back, once its cause is mended: each has its effect once, however often it comes.

use chassis::{Problem, in_transaction, streams};
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use contracts::Shard;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::{self, Change, Decision};
use crate::error::Error;
use crate::intents;
use crate::state::AppState;

/// The verbs in the log of operators.
const EVENTS: &str = "stripe.replay";
const INTENTS: &str = "stripe.replay_intents";
const MESSAGES: &str = "streams.replay";

/// Which events of Stripe: one, or those that came within a time.
#[derive(Debug, Clone, Default, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The event's id (`evt_…`); with `--intents` that of the intent, as the log line has it.
    pub event_id: Option<String>,
    /// Received, or set aside, at or after this instant (RFC 3339).
    #[arg(long)]
    pub from: Option<DateTime<Utc>>,
    /// Received, or set aside, before this instant (RFC 3339).
    #[arg(long)]
    pub to: Option<DateTime<Utc>>,
}

/// Which wishes towards Stripe: one, or those that were set aside within a time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intents {
    intent_id: Option<Uuid>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

impl Events {
    /// The same of wishes, for the terminal.
    ///
    /// # Errors
    /// An id that is none.
    pub(super) fn of_intents(&self) -> Result<Intents, Error> {
        let malformed = |_| Problem::invalid_field("intent_id", "must be the id of an intent");
        let intent_id = self.event_id.as_deref().map(str::parse).transpose().map_err(malformed)?;
        Ok(Intents { intent_id, from: self.from, to: self.to })
    }
}

/// A stream that billing-service consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// What requests used, from chat-service.
    Usage,
    /// Organizations that were made, from auth-service.
    Auth,
}

/// Puts events of Stripe that were set aside back, with all their tries, and logs it in the same transaction [B-22]; their ids.
///
/// # Errors
/// A decision without a name or a reason, or events that are not said; the database's.
pub async fn events(state: &AppState, decision: &Decision, which: &Events) -> Result<Vec<String>, Error> {
    decision.check()?;
    if which.event_id.is_none() && (which.from.is_none() || which.to.is_none()) {
        return Err(Problem::invalid_field("event_id", "must be said, or from and to").into());
    }
    let request = json!(which);
    let replayed = in_transaction!(state.pool, |transaction| {
        if let Some(after) = audit::earlier(transaction, decision, EVENTS, None, &request).await? {
            return Ok(after["event_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        let replayed: Vec<String> = sqlx::query_scalar!(
            "update stripe_events set state = 'received', attempts = 0, next_attempt_at = $4
             where state = 'parked' and ($1::text is null or event_id = $1) and ($2::timestamptz is null or received_at >= $2)
               and ($3::timestamptz is null or received_at < $3) returning event_id",
            which.event_id,
            which.from,
            which.to,
            state.clock.now()
        )
        .fetch_all(&mut **transaction)
        .await?;
        if !replayed.is_empty() {
            let (before, after) = (json!({"state": "parked"}), json!({"state": "received", "event_ids": replayed}));
            let change = Change { action: EVENTS, organization: None, request: &request, before: &before, after: &after };
            audit::record(state, transaction, decision, &change).await?;
        }
        Ok::<_, Error>(replayed)
    })?;
    state.stripe_events.notify_one();
    Ok(replayed)
}

/// Puts wishes that Stripe refused, and that were set aside, back with all their tries, and logs it in the same transaction [B-22]; their ids.
/// What waited behind them is sent after them.
///
/// # Errors
/// A decision without a name or a reason, or wishes that are not said; the database's.
pub async fn intents(state: &AppState, decision: &Decision, which: &Intents) -> Result<Vec<String>, Error> {
    decision.check()?;
    if which.intent_id.is_none() && (which.from.is_none() || which.to.is_none()) {
        return Err(Problem::invalid_field("intent_id", "must be said, or from and to").into());
    }
    let request = json!(which);
    in_transaction!(state.pool, |transaction| {
        if let Some(after) = audit::earlier(transaction, decision, INTENTS, None, &request).await? {
            return Ok(after["intent_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        let back = intents::bring_back(state, transaction, which.intent_id, (which.from, which.to)).await?;
        let replayed: Vec<String> = back.iter().map(Uuid::to_string).collect();
        if !replayed.is_empty() {
            let (before, after) = (json!({"state": "parked"}), json!({"state": "unsent", "intent_ids": replayed}));
            let change = Change { action: INTENTS, organization: None, request: &request, before: &before, after: &after };
            audit::record(state, transaction, decision, &change).await?;
        }
        Ok(replayed)
    })
}

/// Puts messages of a stream that were set aside back, and logs it; how many. Broken off between the two, they are back and the log does
/// not say so: repeating it says it.
///
/// # Errors
/// A decision without a name or a reason; Redis's, the database's.
pub async fn messages(state: &AppState, decision: &Decision, stream: Stream) -> Result<u64, Error> {
    decision.check()?;
    let names = match stream {
        Stream::Usage => Shard::all().map(Shard::usage_stream).collect(),
        Stream::Auth => vec![contracts::events::AUTH_STREAM.to_owned()],
    };
    let mut replayed = 0;
    for name in names {
        replayed += streams::replay(&state.redis, &name).await?;
    }
    let (request, after) = (json!({"stream": stream}), json!({"messages": replayed}));
    in_transaction!(state.pool, |transaction| {
        if audit::earlier(transaction, decision, MESSAGES, None, &request).await?.is_some() {
            return Ok(());
        }
        let change = Change { action: MESSAGES, organization: None, request: &request, before: &Value::Null, after: &after };
        audit::record(state, transaction, decision, &change).await
    })?;
    Ok(replayed)
}
