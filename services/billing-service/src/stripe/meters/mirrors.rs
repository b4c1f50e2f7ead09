//! What is kept at Stripe too: by whose decision, from which hour on.

use chassis::postgres::constraint;
use chassis::{Problem, in_transaction};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::plan::{OLDEST, Window};
use super::stranded;
use crate::audit::{self, Change, Decision};
use crate::error::Error;
use crate::metering::Aggregation;
use crate::state::AppState;

const ADD: &str = "stripe.meter.add";
const STOP: &str = "stripe.meter.stop";
const HOUR: TimeDelta = TimeDelta::hours(1);
/// A month of 31 days and this are as old as what is reported may be: usage that still goes into its own month later could not be.
const CLOSES_WITHIN: TimeDelta = TimeDelta::days(3);

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "source", deny_unknown_fields)]
pub enum Source {
    /// Each organization's meter of this name that makes one of its values in this way.
    Meter {
        /// Its name.
        meter_name: String,
        /// How values become one.
        aggregation: Aggregation,
    },
    /// What requests were sold for, in micro-units of a currency.
    ChatUsage {
        /// Which.
        currency: String,
    },
    /// What requests took beyond the wallet, in micro-units of a currency. The ledger has it as debt.
    ChatOverage {
        /// Which.
        currency: String,
    },
}

impl Source {
    /// How Stripe is to add up: sums of hours can be added; maxima and numbers of different values cannot, and the last one stands.
    #[must_use]
    pub const fn formula(&self) -> &'static str {
        match self {
            Self::Meter { aggregation: Aggregation::Max | Aggregation::Unique, .. } => "last",
            _ => "sum",
        }
    }
}

/// What is to be kept at Stripe.
#[derive(Debug, Clone, Serialize)]
pub struct NewMirror {
    /// By what Stripe knows the meter's events; one meter for each.
    pub event_name: String,
    /// What is counted.
    #[serde(flatten)]
    pub source: Source,
    /// Digits after the point that are reported, by reporting whole numbers of that unit.
    pub decimals: i32,
    /// From the beginning of this instant's hour on; from the current hour on if absent.
    pub since: Option<DateTime<Utc>>,
}

impl NewMirror {
    fn check(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, Problem> {
        let named = |text: &str, most: usize| !text.is_empty() && text.len() <= most && !text.contains('\0');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if !named(&self.event_name, 100) || !self.event_name.bytes().all(plain) {
            return Err(Problem::invalid_field("event_name", "must be 1 to 100 letters, digits, _, - or ."));
        }
        match &self.source {
            Source::Meter { meter_name, .. } if !named(meter_name, 100) => {
                return Err(Problem::invalid_field("meter", "must have 1 to 100 bytes and no NUL"));
            }
            Source::ChatUsage { currency } | Source::ChatOverage { currency } => {
                if currency.parse::<money::Currency>().is_err() {
                    return Err(Problem::invalid_field("currency", "must be a currency that is known here, such as USD"));
                }
                if self.decimals != 0 {
                    return Err(Problem::invalid_field("decimals", "must be 0 for chat, which is in micro-units"));
                }
            }
            Source::Meter { .. } => {}
        }
        if !(0..=6).contains(&self.decimals) {
            return Err(Problem::invalid_field("decimals", "must be 0 to 6"));
        }
        let since = self.since.unwrap_or(now);
        let hour = since.duration_trunc(HOUR).ok().filter(|hour| *hour >= now - OLDEST && since <= now);
        hour.ok_or_else(|| Problem::invalid_field("since", "must be in the last 34 days and not in the future: Stripe takes nothing older"))
    }
}

/// What is kept at Stripe.
#[derive(Debug, Clone, Serialize)]
pub struct Mirror {
    /// By what Stripe knows its events.
    pub event_name: String,
    /// `meter`, `chat_usage` or `chat_overage`.
    pub source: String,
    /// The name of the organizations' meters.
    pub meter_name: Option<String>,
    /// How their values become one.
    pub aggregation: Option<String>,
    /// Of chat.
    pub currency: Option<String>,
    /// Digits after the point that are reported.
    pub decimals: i32,
    /// How Stripe adds up.
    pub formula: String,
    /// The first hour.
    pub since: DateTime<Utc>,
    /// The first hour that is not reported any more.
    pub ended_at: Option<DateTime<Utc>>,
    /// The meter at Stripe.
    pub stripe_id: Option<String>,
    /// Why that cannot be used.
    pub fault: Option<String>,
    /// Reports that are not sent yet, and those that were set aside.
    pub pending: i64,
    /// Those that were set aside.
    pub parked: i64,
}

/// Has something kept at Stripe from now on; the meter there is found or made when the first report is due.
///
/// # Errors
/// 422 when it breaks a rule, months stay open for too long or the decision is not one; 409 when the name is taken; the database's.
pub async fn add(state: &AppState, decision: &Decision, new: &NewMirror) -> Result<(), Error> {
    decision.check()?;
    let since = new.check(state.clock.now())?;
    if matches!(new.source, Source::Meter { .. }) && state.config.metering.rules().close_after > CLOSES_WITHIN {
        let rule = "cannot be kept at Stripe while months take events for longer than 3 days (BILLING_METERING_CLOSE_AFTER_MS)";
        return Err(Problem::invalid_field("meter", rule).into());
    }
    let request = json!(new);
    in_transaction!(state.pool, |transaction| {
        if audit::earlier(transaction, decision, ADD, None, &request).await?.is_some() {
            return Ok(());
        }
        let (source, meter, aggregation, currency) = match &new.source {
            Source::Meter { meter_name, aggregation } => ("meter", Some(meter_name.as_str()), Some(aggregation.as_str()), None),
            Source::ChatUsage { currency } => ("chat_usage", None, None, Some(currency.as_str())),
            Source::ChatOverage { currency } => ("chat_overage", None, None, Some(currency.as_str())),
        };
        sqlx::query!(
            "insert into stripe_meters (id, event_name, display_name, source, meter_name, aggregation, currency, decimals, formula, since, next_attempt_at, created_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
            state.random.uuid_v7(&state.clock),
            new.event_name,
            meter.unwrap_or(&new.event_name),
            source,
            meter,
            aggregation,
            currency,
            new.decimals,
            new.source.formula(),
            since,
            state.clock.now()
        )
        .execute(&mut **transaction)
        .await
        .map_err(|error| match constraint(&error) {
            Some("stripe_meters_event_name_key") => {
                Problem::conflict("stripe_meter_exists", "Something is kept under this name").field("event_name", "must be new").into()
            }
            _ => Error::from(error),
        })?;
        let change = Change { action: ADD, organization: None, request: &request, before: &Value::Null, after: &request };
        audit::record(state, transaction, decision, &change).await
    })
}

/// Reports nothing more of what is used from the next hour on. What waits for a meter that cannot be used is set aside.
///
/// # Errors
/// 404 when nothing is kept under the name; the database's.
pub async fn stop(state: &AppState, decision: &Decision, event_name: &str) -> Result<(), Error> {
    decision.check()?;
    let request = json!({"event_name": event_name});
    let end = state.clock.now().duration_trunc(HOUR).map_err(|_| Error::Internal("an hour has no beginning"))? + HOUR;
    in_transaction!(state.pool, |transaction| {
        if audit::earlier(transaction, decision, STOP, None, &request).await?.is_some() {
            return Ok(());
        }
        let stopped = sqlx::query!("update stripe_meters set ended_at = $2 where event_name = $1 and ended_at is null", event_name, end)
            .execute(&mut **transaction)
            .await?;
        if stopped.rows_affected() == 0 {
            return Err(Error::NotFound);
        }
        stranded::set_aside(transaction, state.clock.now()).await?;
        let after = json!({"ended_at": end});
        let change = Change { action: STOP, organization: None, request: &request, before: &Value::Null, after: &after };
        audit::record(state, transaction, decision, &change).await
    })
}

/// All that is or was kept at Stripe, by name.
///
/// # Errors
/// The database's.
pub async fn list(state: &AppState) -> Result<Vec<Mirror>, Error> {
    let rows = sqlx::query_as!(
        Mirror,
        r#"select event_name, source, meter_name, aggregation, currency, decimals, formula, since, ended_at, stripe_id, fault,
             (select count(*) from stripe_meter_reports r where r.stripe_meter_id = s.id and r.state = 'pending') as "pending!",
             (select count(*) from stripe_meter_reports r where r.stripe_meter_id = s.id and r.state = 'parked') as "parked!"
           from stripe_meters s order by event_name"#
    );
    Ok(rows.fetch_all(&state.pool).await?)
}

/// What the parts of this module need to know of one.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) id: Uuid,
    pub(super) event_name: String,
    pub(super) display_name: String,
    pub(super) formula: String,
    pub(super) since: DateTime<Utc>,
    pub(super) ended_at: Option<DateTime<Utc>>,
    pub(super) stripe_id: Option<String>,
    pub(super) fault: Option<String>,
    pub(super) attempts: i32,
}

impl Known {
    /// The part of a time in which it is kept at Stripe.
    pub(super) fn within(&self, (from, to): Window) -> Window {
        (from.max(self.since), self.ended_at.map_or(to, |end| end.min(to)))
    }
}

/// All of which something after an instant is kept at Stripe.
pub(super) async fn kept_since(state: &AppState, from: DateTime<Utc>) -> Result<Vec<Known>, Error> {
    let kept = sqlx::query_as!(
        Known,
        "select id, event_name, display_name, formula, since, ended_at, stripe_id, fault, attempts from stripe_meters
         where ended_at is null or ended_at > $1 order by event_name",
        from
    );
    Ok(kept.fetch_all(&state.pool).await?)
}
