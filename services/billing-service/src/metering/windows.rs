//! `GET /v1/meters/{id}/usage`: what a meter counted, by hour, day or month in UTC; every window is half-open [B-60].

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use chassis::Problem;
use chassis::http::{Path, Query};
use chassis::problem::ProblemBody;
use chrono::{DateTime, Months, TimeDelta, Timelike, Utc};
use identity::{Authenticated, Scope};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::{IntoParams, ToSchema};

use super::MeterId;
use super::definition::{Aggregation, Group};
use crate::error::Error;
use crate::state::AppState;

/// Windows in an answer at most.
const MOST: i64 = 1_000;
/// Values in an answer at most, of all windows and groups: it is made in memory.
const MOST_VALUES: usize = 10_000;

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// An hour.
    Hour,
    /// A day in UTC.
    Day,
    /// A calendar month in UTC.
    Month,
}

/// Which windows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct WindowQuery {
    /// From this instant on: the beginning of an hour, or of a day for days and months.
    from: DateTime<Utc>,
    /// Up to this instant and not at it: the beginning of an hour or a day likewise.
    to: DateTime<Utc>,
    /// How long each is.
    window: Window,
    /// Names of the meter's groups, separated by commas.
    group_by: Option<String>,
}

/// What a meter counted in one window for one group.
#[derive(Debug, Serialize, ToSchema)]
pub struct MeterWindow {
    /// From this instant on.
    start: DateTime<Utc>,
    /// Up to this instant and not at it.
    end: DateTime<Utc>,
    /// The values that it is kept apart by; null where an event had none.
    groups: BTreeMap<String, Option<String>>,
    /// What it comes to: an exact decimal.
    #[schema(example = "12.5")]
    value: String,
}

/// Windows in order; those in which nothing was counted are left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct MeterUsage {
    /// One for each window and group.
    data: Vec<MeterWindow>,
    /// Whether all events that came before the meter are counted; until then values grow.
    is_complete: bool,
}

/// What a meter counted.
#[utoipa::path(get, path = "/v1/meters/{id}/usage", tag = "metering", params(("id" = String, Path), WindowQuery), security(("bearer" = [])),
    responses((status = 200, body = MeterUsage), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn usage(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Path(id): Path<MeterId>,
    Query(query): Query<WindowQuery>,
) -> Result<axum::Json<MeterUsage>, Error> {
    principal.require(Scope::BillingRead)?;
    query.check()?;
    let meter = sqlx::query!(
        r#"select aggregation, is_complete, group_by as "group_by: Json<Vec<Group>>" from meters where id = $1 and organization_id = $2"#,
        id.uuid(),
        principal.organization_id.uuid()
    )
    .fetch_optional(&state.pool)
    .await?
    .ok_or(Error::NotFound)?;
    let names = query.names(&meter.group_by.0)?;
    let aggregation = Aggregation::parse(&meter.aggregation).ok_or(Error::Internal("a meter has an unknown aggregation"))?;
    let data = windows(&state, id, aggregation, &query, &names).await?;
    Ok(axum::Json(MeterUsage { data, is_complete: meter.is_complete }))
}

impl WindowQuery {
    fn check(&self) -> Result<(), Problem> {
        for (field, at) in [("from", self.from), ("to", self.to)] {
            let whole = at.minute() == 0 && at.second() == 0 && at.nanosecond() == 0 && (self.window == Window::Hour || at.hour() == 0);
            if !whole {
                return Err(Problem::invalid_field(field, "must be the beginning of an hour, or of a day in UTC for days and months"));
            }
        }
        let shortest = match self.window {
            Window::Hour => TimeDelta::hours(MOST),
            Window::Day => TimeDelta::days(MOST),
            Window::Month => TimeDelta::days(MOST * 28),
        };
        if self.to <= self.from || self.to - self.from > shortest {
            return Err(Problem::invalid_field("to", format!("must be after from, by at most {MOST} windows")));
        }
        Ok(())
    }

    fn names(&self, known: &[Group]) -> Result<Vec<String>, Problem> {
        let names = self.group_by.as_deref().unwrap_or_default().split(',').filter(|name| !name.is_empty()).map(str::to_owned);
        // Once is enough, however often somebody says it.
        let names: BTreeSet<String> = names.collect();
        match names.iter().find(|name| !known.iter().any(|group| &group.name == *name)) {
            Some(_) => Err(Problem::invalid_field("group_by", "must name groups of the meter")),
            None => Ok(names.into_iter().collect()),
        }
    }
}

impl Window {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    fn end(self, start: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Hour => start + TimeDelta::hours(1),
            Self::Day => start + TimeDelta::days(1),
            Self::Month => start.checked_add_months(Months::new(1)).unwrap_or(start),
        }
    }
}

struct Row {
    start: DateTime<Utc>,
    groups: Json<BTreeMap<String, Option<String>>>,
    value: String,
}

/// Rollups and what was not added to them yet, together: never behind the events.
async fn windows(
    state: &AppState,
    id: MeterId,
    aggregation: Aggregation,
    query: &WindowQuery,
    names: &[String],
) -> Result<Vec<MeterWindow>, Error> {
    let grain = if query.window == Window::Hour { "hour" } else { "day" };
    let one_too_many = i64::try_from(MOST_VALUES + 1).unwrap_or(i64::MAX);
    let rows = if aggregation == Aggregation::Unique {
        sqlx::query_as!(
            Row,
            r#"select date_trunc($4, window_start, 'UTC') as "start!",
                 (select coalesce(jsonb_object_agg(name, groups -> name), '{}') from unnest($5::text[]) name) as "groups!: Json<BTreeMap<String, Option<String>>>",
                 count(distinct value)::text as "value!"
               from (select window_start, groups, value from meter_values where meter_id = $1 and window_start >= $2 and window_start < $3
                     union all select hour, groups, value from meter_deltas where meter_id = $1 and hour >= $2 and hour < $3) both_of_them
               group by 1, 2 order by 1, 2 limit $6"#,
            id.uuid(),
            query.from,
            query.to,
            query.window.as_str(),
            names,
            one_too_many
        )
        .fetch_all(&state.pool)
        .await?
    } else {
        sqlx::query_as!(
            Row,
            r#"select date_trunc($4, window_start, 'UTC') as "start!",
                 (select coalesce(jsonb_object_agg(name, groups -> name), '{}') from unnest($5::text[]) name) as "groups!: Json<BTreeMap<String, Option<String>>>",
                 trim_scale(case $6 when 'count' then sum(events) when 'max' then max(most) else sum(amount) end)::text as "value!"
               from (select window_start, groups, events, amount, most from meter_rollups
                     where meter_id = $1 and grain = $7 and window_start >= $2 and window_start < $3
                     union all select hour, groups, events, amount, most from meter_deltas where meter_id = $1 and hour >= $2 and hour < $3) both_of_them
               group by 1, 2 having $6 <> 'max' or max(most) is not null order by 1, 2 limit $8"#,
            id.uuid(),
            query.from,
            query.to,
            query.window.as_str(),
            names,
            aggregation.as_str(),
            grain,
            one_too_many
        )
        .fetch_all(&state.pool)
        .await?
    };
    if rows.len() > MOST_VALUES {
        let rule = format!("must be less: windows and groups come to more than {MOST_VALUES} values");
        return Err(Problem::invalid_field("to", &rule).field("group_by", rule).into());
    }
    let window = |row: Row| MeterWindow { start: row.start, end: query.window.end(row.start), groups: row.groups.0, value: row.value };
    Ok(rows.into_iter().map(window).collect())
}
