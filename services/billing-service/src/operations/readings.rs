//! The values, read part by part: what cannot be read in one says nothing of the others.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;

use super::gauges::{GAUGES, Gauge, Part};
use super::{clock, under_way};
use crate::error::Error;
use crate::state::AppState;

/// A value.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Of what.
    pub gauge: &'static Gauge,
    /// Of which state, stream or currency; empty when it is not kept apart.
    pub label: String,
    /// How much.
    pub value: i64,
}

impl Reading {
    /// None for what is not in the table of gauges.
    pub(super) fn new(name: &str, label: String, value: i64) -> Option<Self> {
        let gauge = GAUGES.iter().find(|gauge| gauge.name == name)?;
        Some(Self { gauge, label, value })
    }

    /// Whether another reading is of the same.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        self.gauge.name == other.gauge.name && self.label == other.label
    }

    /// Sets the metric.
    pub fn set(&self) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        let value = self.value as f64;
        self.put(value);
    }

    /// Sets the metric to zero: there is nothing of it any more.
    pub fn set_to_zero(&self) {
        self.put(0.0);
    }

    /// Sets the metric to "not a number", which Prometheus has for what is not known.
    pub fn set_to_unknown(&self) {
        self.put(f64::NAN);
    }

    fn put(&self, value: f64) {
        match self.gauge.label {
            Some(label) => metrics::gauge!(self.gauge.name, label => self.label.clone()).set(value),
            None => metrics::gauge!(self.gauge.name).set(value),
        }
    }
}

/// What became of reading a part.
pub type Outcome = (Part, Result<Vec<Reading>, Error>);

/// Reads each part, all at once: one that waits in vain keeps no other.
pub async fn parts(state: &AppState) -> Vec<Outcome> {
    join_all(Part::ALL.map(|part| async move { (part, part_of(state, part).await) })).await
}

/// Reads everything, or nothing.
///
/// # Errors
/// The database's or Redis's, of the first part that cannot be read.
pub async fn read(state: &AppState) -> Result<Vec<Reading>, Error> {
    let all: Result<Vec<_>, Error> = parts(state).await.into_iter().map(|(_, readings)| readings).collect();
    Ok(all?.concat())
}

async fn part_of(state: &AppState, part: Part) -> Result<Vec<Reading>, Error> {
    match part {
        Part::Postgres => {
            let mut readings = rows(state).await?;
            readings.extend(differences(state).await?);
            readings.extend(checked(state).await?);
            Ok(readings)
        }
        Part::Leases => under_way::remainders(state).await,
        Part::Streams => under_way::streams(state).await,
        Part::Memory => under_way::memory(state).await,
        Part::Clock => clock::difference(&state.pool).await,
    }
}

struct Row {
    name: String,
    label: String,
    value: i64,
}

/// Counts and ages, in one statement, along indexes made for them.
async fn rows(state: &AppState) -> Result<Vec<Reading>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"with today as (select currency, sum(price_micros)::bigint as price, sum(cost_micros)::bigint as cost from usage_by_day
             where day >= date_trunc('day', $1::timestamptz, 'UTC') group by currency)
           select name as "name!", coalesce(label, '') as "label!", value as "value!" from (
             select 'billing_leases' as name, state as label, count(*) as value from leases where state <> 'closed' group by state
             union all select 'billing_lease_held_micros', currency, sum(held_micros)::bigint from leases where state <> 'closed' group by currency
             union all select 'billing_lease_overdue_seconds', null, extract(epoch from $1 - min(deadline))::bigint from leases where state in ('opening', 'open')
             union all select 'billing_reservation_overdue_seconds', null, extract(epoch from $1 - min(expires_at))::bigint from reservations where state = 'held'
             union all select 'billing_rollup_deltas', 'usage', count(*) from usage_deltas
             union all select 'billing_rollup_deltas', 'meters', count(*) from meter_deltas
             union all select 'billing_rollup_deltas', 'spend', (select count(*) from spend_deltas) + (select count(*) from tag_spend_deltas)
             union all select 'billing_meter_incomplete_age_seconds', null, extract(epoch from $1 - min(created_at))::bigint from meters where not is_complete
             union all select 'billing_stripe_events', state, count(*) from stripe_events where state in ('received', 'parked') group by state
             union all select 'billing_stripe_event_age_seconds', null, extract(epoch from $1 - min(received_at))::bigint from stripe_events where state = 'received'
             union all select 'billing_stripe_events_set_aside', null, count(*) from stripe_events where state = 'parked'
             union all select 'billing_stripe_customers_unmade', null, count(*) from stripe_customers where customer_id is null
             union all select 'billing_intents_set_aside', null, count(*) from intents where parked_at is not null and sent_at is null
             union all select 'billing_intents_unsent', null, count(*) from intents where sent_at is null
             union all select 'billing_intent_age_seconds', null, extract(epoch from $1 - min(created_at))::bigint from intents where sent_at is null and parked_at is null and $2
             union all select 'billing_stripe_meter_reports_unsent', null, count(*) from stripe_meter_reports where state = 'pending'
             union all select 'billing_stripe_meter_report_age_seconds', null, extract(epoch from $1 - min(created_at))::bigint from stripe_meter_reports where state = 'pending' and $2
             union all select 'billing_stripe_meter_reports_set_aside', null, count(*) from stripe_meter_reports where state = 'parked' and reason not like 'stopped:%'
             union all select 'billing_stripe_meters_unusable', null, count(*) from stripe_meters where fault is not null and ended_at is null
             union all select 'billing_subscription_grants_unposted', null, count(*) from subscription_grants where posted_at is null
             union all select 'billing_subscription_grant_age_seconds', null, extract(epoch from $1 - min(created_at))::bigint from subscription_grants where posted_at is null
             union all select 'billing_outbox_unsent', null, count(*) from _outbox where sent_at is null
             union all select 'billing_webhooks_waiting', null, count(*) from webhook_deliveries where state = 'waiting'
             union all select 'billing_ledger_unsealed', null, count(*) from ledger_unsealed
             union all select 'billing_seal_lag_seconds', null, (select extract(epoch from $1 - t.occurred_at)::bigint from ledger_unsealed u
               join ledger_transactions t on t.position = u.position order by u.position limit 1)
             union all select 'billing_seal_age_seconds', null, (select extract(epoch from $1 - sealed_at)::bigint from ledger_seals order by id desc limit 1)
             union all select 'billing_revenue_today_micros', currency, price from today
             union all select 'billing_cost_today_micros', currency, cost from today
             union all select 'billing_margin_today_micros', currency, price - cost from today
             union all select 'billing_wallets_in_debt', currency, count(*) from accounts where kind = 'debt' and balance_micros < 0 group by currency
             union all select 'billing_debt_micros', currency, -sum(balance_micros)::bigint from accounts where kind = 'debt' and balance_micros < 0 group by currency
           ) r where value is not null"#,
        state.clock.now(),
        state.config.stripe.secret_key.is_some()
    )
    .fetch_all(&state.pool)
    .await?;
    // What is due in the future is not overdue: an age is never below zero.
    let not_before = |row: &Row| if row.name.ends_with("_seconds") { row.value.max(0) } else { row.value };
    Ok(rows.into_iter().filter_map(|row| Reading::new(&row.name, row.label.clone(), not_before(&row))).collect())
}

/// What the last comparison with Stripe found, and how long the next one is overdue; nothing where there was none yet.
async fn differences(state: &AppState) -> Result<Vec<Reading>, sqlx::Error> {
    let last = sqlx::query!("select infos, warnings, errors, ended_at from reconciliation_runs order by started_at desc limit 1");
    let Some(last) = last.fetch_optional(&state.pool).await? else { return Ok(Vec::new()) };
    let overdue = state.stripe.as_ref().and_then(|_| overdue(state, last.ended_at, state.config.stripe.reconcile.0));
    let told = [
        ("billing_reconciliation_notes", "", Some(last.infos)),
        ("billing_reconciliation_differences", "warning", Some(last.warnings)),
        ("billing_reconciliation_differences", "error", Some(last.errors)),
        ("billing_reconciliation_overdue_seconds", "", overdue),
    ];
    Ok(told.into_iter().filter_map(|(name, label, value)| Reading::new(name, label.to_owned(), value?)).collect())
}

/// How long the next of what is done from time to time is overdue; none where it is never done by itself.
fn overdue(state: &AppState, last: DateTime<Utc>, pause: Duration) -> Option<i64> {
    let pause = TimeDelta::from_std(pause).ok().filter(|pause| !pause.is_zero())?;
    Some((state.clock.now() - last - pause).num_seconds().max(0))
}

/// What the last check of the ledger found, and how long the next one is overdue; nothing where there was none yet.
async fn checked(state: &AppState) -> Result<Vec<Reading>, sqlx::Error> {
    let last = sqlx::query!("select differences, ended_at from ledger_checks order by id desc limit 1").fetch_optional(&state.pool).await?;
    let Some(last) = last else { return Ok(Vec::new()) };
    let overdue = overdue(state, last.ended_at, state.config.ledger_check.0);
    let told = [("billing_ledger_differences", Some(last.differences)), ("billing_ledger_check_overdue_seconds", overdue)];
    Ok(told.into_iter().filter_map(|(name, value)| Reading::new(name, String::new(), value?)).collect())
}
