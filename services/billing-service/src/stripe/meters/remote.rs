//! Meters at Stripe: found by the name of their events or made, and what they come to for a customer.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::mirrors::Known;
use super::plan::Window;
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::backoff;
use crate::stripe::call::Call;
use crate::stripe::object::Object;
use crate::stripe::transport::Transport;

/// Why a meter at Stripe cannot be used, if it cannot.
fn fault(meter: Object<'_>, formula: &str) -> Option<String> {
    let checks = [
        ("default_aggregation.formula", meter.at("default_aggregation").text("formula"), formula),
        ("customer_mapping.event_payload_key", meter.at("customer_mapping").text("event_payload_key"), "stripe_customer_id"),
        ("value_settings.event_payload_key", meter.at("value_settings").text("event_payload_key"), "value"),
    ];
    let wrong = checks.into_iter().find(|(_, theirs, ours)| *theirs != Some(*ours));
    // In such a meter the last event of a window takes the place of all before it: what came late would be all that counts.
    let window = meter.text("event_time_window").map(|window| ("event_time_window", Some(window), "none"));
    let (field, theirs, ours) = wrong.or(window)?;
    Some(format!("the meter at Stripe has {field} {}, and {ours} is needed", theirs.unwrap_or("none")))
}

/// Sees to the meters at Stripe that are not known yet; each by itself, so that one that cannot be had holds up no other.
pub(super) async fn prepare(state: &AppState, stripe: &Transport) -> Result<(), Error> {
    let now = state.clock.now();
    // The try is noted before it is made: other replicas leave it alone.
    let due = sqlx::query_as!(
        Known,
        "update stripe_meters set attempts = attempts + 1, next_attempt_at = $1 + interval '1 minute'
         where id in (select id from stripe_meters where stripe_id is null and next_attempt_at <= $1 and (ended_at is null or fault is null and ended_at > $1)
                      order by id for update skip locked)
         returning id, event_name, display_name, formula, since, ended_at, stripe_id, fault, attempts",
        now
    )
    .fetch_all(&state.pool)
    .await?;
    for mirror in due {
        match find_or_make(stripe, &mirror).await {
            Ok((id, fault)) => {
                if let Some(fault) = &fault {
                    tracing::error!(
                        stripe.meter.event_name = mirror.event_name,
                        fault,
                        "a meter at Stripe cannot be used: nothing is reported to it"
                    );
                }
                let (usable, next) = (fault.is_none().then_some(id), backoff::next(state, backoff::LONGEST_SECONDS));
                // The number of the try goes on: as part of the key it makes a meter anew when this one is deactivated within a day.
                sqlx::query!(
                    "update stripe_meters set stripe_id = $2, fault = $3, next_attempt_at = $4 where id = $1",
                    mirror.id,
                    usable,
                    fault,
                    next
                )
                .execute(&state.pool)
                .await?;
            }
            Err(error) => {
                tracing::warn!(
                    stripe.meter.event_name = mirror.event_name,
                    error.message = error.chain(),
                    "a meter could not be had of Stripe; it will be tried again"
                );
                let next = match &error {
                    Error::Stripe(error) => backoff::after(state, mirror.attempts, error),
                    _ => backoff::next(state, backoff::seconds(mirror.attempts)),
                };
                sqlx::query!("update stripe_meters set next_attempt_at = $2 where id = $1", mirror.id, next).execute(&state.pool).await?;
            }
        }
    }
    Ok(())
}

async fn find_or_make(stripe: &Transport, mirror: &Known) -> Result<(String, Option<String>), Error> {
    if let Some(found) = find(stripe, mirror).await? {
        return Ok(found);
    }
    let call = Call::post("/billing/meters", format!("meter-{}-{}", mirror.id, mirror.attempts))
        .with("display_name", &mirror.display_name)
        .with("event_name", &mirror.event_name)
        .with("default_aggregation[formula]", &mirror.formula)
        .with("customer_mapping[type]", "by_id")
        .with("customer_mapping[event_payload_key]", "stripe_customer_id")
        .with("value_settings[event_payload_key]", "value");
    match stripe.ask(&call).await {
        Ok(made) => Ok((Object(&made).needs("id")?.to_owned(), fault(Object(&made), &mirror.formula))),
        // Somebody was faster: it is there now.
        Err(error) if error.status() == Some(400) => find(stripe, mirror).await?.ok_or(Error::Stripe(error)),
        Err(error) => Err(error.into()),
    }
}

/// The active meter for the name, with what is wrong with it.
pub(super) async fn find(stripe: &Transport, mirror: &Known) -> Result<Option<(String, Option<String>)>, Error> {
    let mut after: Option<String> = None;
    loop {
        let call = Call::get("/billing/meters").with("status", "active").with("limit", 100).with_some("starting_after", after.as_deref());
        let page = stripe.ask(&call).await?;
        let mut last = None;
        for meter in Object(&page).list("data") {
            if meter.text("event_name") == Some(&mirror.event_name) {
                return Ok(Some((meter.needs("id")?.to_owned(), fault(meter, &mirror.formula))));
            }
            last = Some(meter.needs("id")?.to_owned());
        }
        after = last.filter(|_| page["has_more"] == true);
        if after.is_none() {
            return Ok(None);
        }
    }
}

/// What a meter at Stripe comes to for a customer, by the beginning of each window in which it is not nothing: hours, or all as one.
///
/// # Errors
/// Stripe's; [`Error::Unreadable`].
pub(super) async fn summaries(
    stripe: &Transport,
    meter: &str,
    customer: &str,
    (from, to): Window,
    hourly: bool,
) -> Result<BTreeMap<DateTime<Utc>, i64>, Error> {
    let (mut sums, mut after) = (BTreeMap::new(), None::<String>);
    loop {
        let call = Call::get(format!("/billing/meters/{meter}/event_summaries"))
            .with("customer", customer)
            .with("start_time", from.timestamp())
            .with("end_time", to.timestamp())
            .with_some("value_grouping_window", hourly.then_some("hour"))
            .with("limit", 100)
            .with_some("starting_after", after.as_deref());
        let page = stripe.ask_at_leisure(&call).await?;
        let mut last = None;
        for sum in Object(&page).list("data") {
            let (at, value) = (sum.time("start_time").ok_or(Error::Unreadable("start_time"))?, whole(sum)?);
            if value != 0 {
                sums.insert(at, value);
            }
            last = Some(sum.needs("id")?.to_owned());
        }
        after = last.filter(|_| page["has_more"] == true);
        if after.is_none() {
            return Ok(sums);
        }
    }
}

/// The sum, which Stripe may write as `5.0`: all that we send are whole numbers.
fn whole(sum: Object<'_>) -> Result<i64, Error> {
    let number = sum.at("aggregated_value").0;
    let text = number.to_string();
    number.as_i64().or_else(|| text.strip_suffix(".0")?.parse().ok()).ok_or(Error::Unreadable("aggregated_value"))
}

/// What it comes to for a customer in one hour.
pub(super) async fn of_hour(stripe: &Transport, meter: &str, customer: &str, hour: DateTime<Utc>) -> Result<i64, Error> {
    let sums = summaries(stripe, meter, customer, (hour, hour + TimeDelta::hours(1)), false).await?;
    Ok(sums.values().next().copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// [B-66]
    #[test]
    fn a_sum_is_a_whole_number_however_it_is_written_and_nothing_is_made_of_any_other() {
        let read = |value: serde_json::Value| whole(Object(&json!({ "aggregated_value": value }))).ok();
        assert_eq!([json!(7), json!(7.0), json!(-3.0), json!(7.5), json!(null)].map(read), [Some(7), Some(7), Some(-3), None, None]);
    }

    #[test]
    fn a_meter_that_adds_up_differently_is_not_used() {
        let mut meter = json!({"default_aggregation": {"formula": "sum"}, "customer_mapping": {"event_payload_key": "stripe_customer_id"}, "value_settings": {"event_payload_key": "value"}});
        assert_eq!(fault(Object(&meter), "sum"), None);
        assert!(fault(Object(&meter), "last").is_some());
        meter["event_time_window"] = "hour".into();
        assert!(fault(Object(&meter), "sum").unwrap().contains("event_time_window hour"));
        meter["value_settings"]["event_payload_key"] = "tokens".into();
        assert!(fault(Object(&meter), "sum").unwrap().contains("value_settings"));
    }
}
