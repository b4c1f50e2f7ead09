//! An alert for each organization, model and key that was sold below its cost on a day: told once, however often it is looked at.

use std::time::Duration;

use chassis::postgres::keep_running;
use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use super::report::{By, report};
use crate::error::Error;
use crate::state::AppState;

const EVERY: Duration = Duration::from_mins(10);

/// Something that was sold below its cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// `organization`, `model` or `key`.
    pub dimension: &'static str,
    /// Which.
    pub value: String,
    /// The beginning of the day.
    pub day: DateTime<Utc>,
    /// Below zero, in micro-units.
    pub margin_micros: i64,
}

/// Looks until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    keep_running("margin-alerts", stop, EVERY, || async {
        look(state).await?;
        Ok(())
    })
    .await;
}

/// Looks at today and yesterday, whose last rows may have come late; returns what is new. Any number of replicas may look at once.
///
/// # Errors
/// The database's.
pub async fn look(state: &AppState) -> Result<Vec<Alert>, Error> {
    let now = state.clock.now();
    let today = now.date_naive().and_time(NaiveTime::MIN).and_utc();
    let mut alerts = Vec::new();
    for day in [today - TimeDelta::days(1), today] {
        for by in [By::Organization, By::Model, By::Key] {
            for row in report(&state.pool, by, day, day + TimeDelta::days(1)).await?.into_iter().filter(|row| row.margin_micros < 0) {
                let noted = sqlx::query!(
                    "insert into margin_alerts (dimension, value, day, currency, price_micros, cost_micros, created_at) values ($1, $2, $3, $4, $5, $6, $7)
                     on conflict do nothing",
                    by.as_str(),
                    row.value,
                    day.date_naive(),
                    row.currency,
                    row.price_micros,
                    row.cost_micros,
                    now
                )
                .execute(&state.pool)
                .await?;
                if noted.rows_affected() == 1 {
                    let alert = Alert { dimension: by.as_str(), value: row.value, day, margin_micros: row.margin_micros };
                    tell(&alert);
                    alerts.push(alert);
                }
            }
        }
    }
    Ok(alerts)
}

/// As soon as it is noted: a look that fails later does not find it again.
fn tell(alert: &Alert) {
    let Alert { dimension, value, day, margin_micros } = alert;
    metrics::counter!("billing_margin_alerts_total", "dimension" => *dimension).increment(1);
    tracing::warn!(margin.dimension = dimension, margin.value = value, margin.day = %day.date_naive(), margin_micros, "usage was sold below its cost");
}
