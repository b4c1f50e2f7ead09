//! The claim of an event and its effect on the meters, in one transaction: what is answered as taken is committed, and what was
//! not committed left no claim [B-56, B-57].

use std::collections::HashSet;

use chassis::in_transaction;
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use serde::Serialize;
use sqlx::{Postgres, Transaction};
use utoipa::ToSchema;

use super::cloud_event::{CloudEvent, Rejection};
use super::definition::Definition;
use super::meters::{self, lock_shared};
use super::placement::{Placement, Rules};
use crate::error::Error;
use crate::state::AppState;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = UsageEventStatus)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It counts when it happened.
    Accepted,
    /// It counts now, since the period in which it happened is closed.
    Adjusted,
    /// It was taken before, or is twice in this batch; it counts once.
    Duplicate,
    /// It counts nowhere.
    Rejected,
}

/// What became of one event of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ItemResult {
    /// Its place in the request.
    pub index: usize,
    /// Its `source`, when it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its `id`, when it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What became of it.
    pub status: Status,
    /// Why it was rejected: `invalid_event`, `invalid_value`, `event_too_late` or `event_in_future`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The attribute and the rule it breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

struct Placed {
    index: usize,
    event: CloudEvent,
    occurred_at: DateTime<Utc>,
    placement: Placement,
}

/// Takes events; one result for each, in their order.
///
/// # Errors
/// The database's; then nothing was taken.
pub async fn ingest(
    state: &AppState,
    organization: OrganizationId,
    events: Vec<Result<CloudEvent, Rejection>>,
) -> Result<Vec<ItemResult>, Error> {
    let now = state.clock.now();
    let rules = state.config.metering.rules();
    let outcome: Result<Vec<ItemResult>, Error> = in_transaction!(state.pool, |transaction| {
        lock_shared(transaction, organization).await?;
        let meters = meters::of(transaction, organization).await?;
        let definitions: Vec<&Definition> = meters.iter().map(|meter| &meter.definition).collect();
        let (mut results, placed) = sort_out(events.clone(), &definitions, rules, now);
        forgive_taken(transaction, organization, &mut results).await?;
        let taken = insert(transaction, organization, &placed, now).await?;
        contribute(transaction, organization, &taken).await?;
        for Placed { index, event, placement, .. } in &placed {
            let status = match placement {
                _ if !taken.contains(&(event.source.clone(), event.id.clone())) => Status::Duplicate,
                Placement::Own => Status::Accepted,
                Placement::Adjustment => Status::Adjusted,
            };
            results.push(result(*index, event, status, None));
        }
        results.sort_by_key(|result| result.index);
        Ok(results)
    });
    let results = outcome?;
    for result in &results {
        let code = result.code.clone().unwrap_or_else(|| format!("{:?}", result.status).to_lowercase());
        metrics::counter!("billing_metered_events_total", "result" => code).increment(1);
    }
    Ok(results)
}

fn result(index: usize, event: &CloudEvent, status: Status, rejection: Option<&Rejection>) -> ItemResult {
    ItemResult {
        index,
        source: Some(event.source.clone()),
        id: Some(event.id.clone()),
        status,
        code: rejection.map(|rejection| rejection.code.to_owned()),
        detail: rejection.map(|rejection| rejection.detail.clone()),
    }
}

/// What can be said without the database: rejections, and duplicates inside the request. The rest is in the order of its key, in which
/// every request takes its locks.
fn sort_out(
    events: Vec<Result<CloudEvent, Rejection>>,
    meters: &[&Definition],
    rules: Rules,
    now: DateTime<Utc>,
) -> (Vec<ItemResult>, Vec<Placed>) {
    let (mut results, mut placed, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (index, event) in events.into_iter().enumerate() {
        let event = match event {
            Ok(event) => event,
            Err(Rejection { code, detail }) => {
                let (status, code) = (Status::Rejected, Some(code.to_owned()));
                results.push(ItemResult { index, source: None, id: None, status, code, detail: Some(detail) });
                continue;
            }
        };
        let occurred_at = event.time.unwrap_or(now);
        let mut fields = event.fields();
        let value = meters
            .iter()
            .try_for_each(|meter| if meter.lets_in(&event.kind, &mut fields) { meter.check_value(&mut fields) } else { Ok(()) });
        let place = || rules.place(occurred_at, now).map_err(|error| Rejection::new(error.code(), error.to_string()));
        match value.and_then(|()| place()) {
            Err(rejection) => results.push(result(index, &event, Status::Rejected, Some(&rejection))),
            Ok(_) if !seen.insert((event.source.clone(), event.id.clone())) => results.push(result(index, &event, Status::Duplicate, None)),
            Ok(placement) => placed.push(Placed { index, event, occurred_at, placement }),
        }
    }
    placed.sort_by(|one, other| (&one.event.source, &one.event.id).cmp(&(&other.event.source, &other.event.id)));
    (results, placed)
}

/// What was taken before counts, whatever is the rule by now: a sender who heard nothing of that and sends it again is told so, and has nothing
/// to correct.
async fn forgive_taken(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    results: &mut [ItemResult],
) -> Result<(), Error> {
    let is_rejected = |result: &&ItemResult| result.status == Status::Rejected;
    let key = |result: &ItemResult| Some((result.source.clone()?, result.id.clone()?));
    let (sources, ids): (Vec<String>, Vec<String>) = results.iter().filter(is_rejected).filter_map(key).unzip();
    if ids.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        "select source, id from metered_events where organization_id = $1 and (source, id) in (select * from unnest($2::text[], $3::text[]))",
        organization.uuid(),
        &sources,
        &ids
    );
    let taken: HashSet<(String, String)> = rows.fetch_all(&mut **transaction).await?.into_iter().map(|row| (row.source, row.id)).collect();
    let was_taken = |result: &&mut ItemResult| is_rejected(&&**result) && key(result).is_some_and(|key| taken.contains(&key));
    for result in results.iter_mut().filter(was_taken) {
        (result.status, result.code, result.detail) = (Status::Duplicate, None, None);
    }
    Ok(())
}

/// Claims the events and writes them: one statement. Returns those that nobody had claimed.
async fn insert(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    placed: &[Placed],
    now: DateTime<Utc>,
) -> Result<HashSet<(String, String)>, Error> {
    let each = |text: fn(&CloudEvent) -> String| placed.iter().map(|placed| text(&placed.event)).collect::<Vec<_>>();
    let subjects: Vec<Option<String>> = placed.iter().map(|placed| placed.event.subject.clone()).collect();
    let occurred: Vec<DateTime<Utc>> = placed.iter().map(|placed| placed.occurred_at).collect();
    let adjustments: Vec<bool> = placed.iter().map(|placed| placed.placement == Placement::Adjustment).collect();
    let rows = sqlx::query!(
        "insert into metered_events (organization_id, source, id, type, subject, occurred_at, counted_at, adjustment, data, received_at)
         select $1, source, id, type, subject, occurred_at, case when adjustment then $9 else occurred_at end, adjustment, data::jsonb, $9
         from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::boolean[], $8::text[])
           as event (source, id, type, subject, occurred_at, adjustment, data)
         on conflict (organization_id, source, id) do nothing returning source, id",
        organization.uuid(),
        &each(|event| event.source.clone()),
        &each(|event| event.id.clone()),
        &each(|event| event.kind.clone()),
        &subjects as &[Option<String>],
        &occurred,
        &adjustments,
        &each(|event| event.json().to_owned()),
        now
    )
    .fetch_all(&mut **transaction)
    .await
    .map_err(|error| if is_data(&error) { unstorable() } else { error.into() })?;
    Ok(rows.into_iter().map(|row| (row.source, row.id)).collect())
}

/// Class 22: a value that the database cannot keep, such as a number beyond all measure.
fn is_data(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code.starts_with("22"))
}

fn unstorable() -> Error {
    chassis::Problem::invalid_field("data", "must be JSON that can be stored; nothing of this request was taken").into()
}

/// Adds what was just taken to the meters, as a rebuild would.
async fn contribute(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    taken: &HashSet<(String, String)>,
) -> Result<(), Error> {
    let (sources, ids): (Vec<String>, Vec<String>) = taken.iter().cloned().unzip();
    sqlx::query!(
        "insert into meter_deltas (meter_id, hour, groups, events, amount, most, value)
         select meter_id, hour, groups, count(*), coalesce(sum(amount), 0), max(amount), value from meter_contributions
         where organization_id = $1 and (source, id) in (select * from unnest($2::text[], $3::text[]))
         group by meter_id, hour, groups, value",
        organization.uuid(),
        &sources,
        &ids
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
