//! Whether Stripe has a report, where its identifier tells nothing any more: by the sum of its hour there, beside what is known to be in it.

use chrono::TimeDelta;

use super::sender::{Due, REMEMBERED};
use super::{plan, remote};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::transport::Transport;

/// A sum at Stripe may be so late: what was sent in this time may be in it or not.
pub(super) const SETTLING: TimeDelta = TimeDelta::minutes(15);

/// What a look says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Stripe has it.
    There,
    /// Stripe has it not.
    NotThere,
    /// Something else of the hour is on its way: a later look tells.
    TooEarly,
    /// The sum fits neither.
    Unclear,
}

/// Looks.
///
/// # Errors
/// Stripe's; the database's.
pub(super) async fn look(state: &AppState, stripe: &Transport, due: &Due, customer: &str) -> Result<Seen, Error> {
    let hour = plan::hour_of(due.dated)?;
    // As `compare` has it: what made up for a loss is part of what was lost.
    let known = sqlx::query!(
        r#"select coalesce(sum(value) filter (where state = 'sent' and not repair), 0)::bigint as "sum!",
             coalesce((array_agg(value order by dated desc) filter (where state = 'sent'))[1], 0) as "last!",
             coalesce(bool_or(sent_at > $6 or state = 'pending' and doubt_at > $7), false) as "under_way!"
           from stripe_meter_reports where stripe_meter_id = $1 and organization_id = $2 and customer_id = $3 and dated >= $4
             and dated < $4 + interval '1 hour' and identifier <> $5"#,
        due.mirror,
        due.organization.uuid(),
        customer,
        hour,
        due.identifier,
        due.claimed_at - SETTLING,
        due.claimed_at - REMEMBERED
    )
    .fetch_one(&state.pool)
    .await?;
    let sums = due.formula == "sum";
    if sums && known.under_way {
        return Ok(Seen::TooEarly);
    }
    let (without, with) = match (sums, due.repair) {
        (true, true) => (known.sum.saturating_sub(due.value), known.sum),
        (true, false) => (known.sum, known.sum.saturating_add(due.value)),
        (false, _) => (known.last, due.value),
    };
    Ok(match remote::of_hour(stripe, &due.meter, customer, hour).await? {
        there if there == with => Seen::There,
        there if there == without => Seen::NotThere,
        // Sending the last value again changes nothing.
        _ if !sums => Seen::NotThere,
        _ => Seen::Unclear,
    })
}
