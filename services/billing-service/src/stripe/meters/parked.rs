//! Reports that Stripe did not want and that were set aside: shown, and sent again when what was in their way is mended.

use chassis::in_transaction;
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use serde::Serialize;
use serde_json::{Value, json};

use crate::audit::{self, Change, Decision};
use crate::error::Error;
use crate::state::AppState;

const ACTION: &str = "stripe.meter.replay";

/// A report that was set aside.
#[derive(Debug, Clone, Serialize)]
pub struct Parked {
    /// By what it is known at Stripe.
    pub identifier: String,
    /// Of which meter there.
    pub event_name: String,
    /// Whose.
    pub organization: OrganizationId,
    /// Of which hour.
    pub hour: DateTime<Utc>,
    /// How much, in the whole numbers that Stripe gets.
    pub value: i64,
    /// Why.
    pub reason: String,
}

/// All of them, oldest first.
///
/// # Errors
/// The database's.
pub async fn list(state: &AppState) -> Result<Vec<Parked>, Error> {
    let rows = sqlx::query!(
        r#"select r.identifier, s.event_name, r.organization_id, r.hour, r.value, r.reason as "reason!"
           from stripe_meter_reports r join stripe_meters s on s.id = r.stripe_meter_id where r.state = 'parked' order by r.created_at, r.identifier"#
    );
    let rows = rows.fetch_all(&state.pool).await?.into_iter().map(|row| Parked {
        identifier: row.identifier,
        event_name: row.event_name,
        organization: OrganizationId::from_uuid(row.organization_id),
        hour: row.hour,
        value: row.value,
        reason: row.reason,
    });
    Ok(rows.collect())
}

/// Has reports that were set aside sent again, and logs it [B-78]; which. Their identifiers stay what they are. They go to the
/// organization's customer of today; one that is too old for Stripe can be dated now, and counts in today's period there.
///
/// Those that are named, or else all of which it is clear that Stripe has them not: an unclear one may be there and would count twice, so
/// that somebody looks at each. Dated now are without a name those that were too old, and no others. What was stopped stays aside.
///
/// # Errors
/// A decision without a name or a reason; the database's.
pub async fn replay(state: &AppState, decision: &Decision, identifiers: &[String], dated_now: bool) -> Result<Vec<String>, Error> {
    decision.check()?;
    let request = json!({"identifiers": identifiers, "dated_now": dated_now});
    in_transaction!(state.pool, |transaction| {
        if let Some(after) = audit::earlier(transaction, decision, ACTION, None, &request).await? {
            return Ok(after["identifiers"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        let replayed: Vec<String> = sqlx::query_scalar!(
            // The number of the try goes on: it is part of its key, and an old key would play back what it was answered then. Who names an
            // unclear one has looked: the sums are not asked again.
            "update stripe_meter_reports set state = 'pending', reason = null, next_attempt_at = $2, customer_id = null,
               doubt_at = case when reason like 'unclear:%' then $2::timestamptz end, dated = case when $3 then $2::timestamptz else dated end
             where state = 'parked' and reason not like 'stopped:%' and (identifier = any ($1)
               or cardinality($1::text[]) = 0 and reason not like 'unclear:%' and (not $3 or reason like 'too_old:%')) returning identifier",
            identifiers,
            state.clock.now(),
            dated_now
        )
        .fetch_all(&mut **transaction)
        .await?;
        if !replayed.is_empty() {
            let (before, after) = (json!({"state": "parked"}), json!({"state": "pending", "identifiers": replayed}));
            let change = Change { action: ACTION, organization: None, request: &request, before: &before, after: &after };
            audit::record(state, transaction, decision, &change).await?;
        }
        Ok::<_, Error>(replayed)
    })
}
