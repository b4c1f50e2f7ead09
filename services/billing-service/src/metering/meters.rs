//! `POST /v1/meters` and `GET /v1/meters`: what is counted. A meter is never changed: another one is made.

use axum::extract::State;
use chassis::Problem;
use chassis::http::Json;
use chassis::idempotency::{Answer, Begun, Call, begin};
use chassis::postgres::constraint;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use identity::{Authenticated, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::types::Json as Jsonb;
use sqlx::{Postgres, Transaction};
use utoipa::ToSchema;

use super::MeterId;
use super::definition::{Aggregation, Definition, Filter, Group};
use crate::audit::{self, Change, Decision};
use crate::error::Error;
use crate::rollups::earlier;
use crate::state::AppState;

/// Meters of an organization at most.
const MOST: usize = 200;
/// Meters of one type of events at most: each event is looked at by each of its type.
const MOST_OF_A_TYPE: usize = 50;

/// A meter.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Meter {
    /// Its id.
    pub id: MeterId,
    /// What it counts.
    #[serde(flatten)]
    pub definition: Definition,
    /// Other meters in which the same event may count as well [B-62].
    pub overlaps_with: Vec<MeterId>,
    /// Whether all events that came before it are counted; where there are many, its sums grow until they are.
    pub is_complete: bool,
    /// When it was made; it counts earlier events too.
    pub created_at: DateTime<Utc>,
}

/// The meters of an organization.
#[derive(Debug, Serialize, ToSchema)]
pub struct Meters {
    /// By name.
    data: Vec<Meter>,
}

/// Makes a meter. Events that came before it are counted too.
#[utoipa::path(post, path = "/v1/meters", tag = "metering", security(("bearer" = [])), params(("Idempotency-Key" = Option<String>, Header)),
    request_body = Definition, responses((status = 201, body = Meter), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    headers: HeaderMap,
    Json(definition): Json<Definition>,
) -> Result<Answer, Error> {
    principal.require(Scope::MetersWrite)?;
    definition.check()?;
    let organization = principal.organization_id;
    let call = Call::new(&headers, &organization.to_string(), "POST /v1/meters", &definition)?;
    let mut open = match begin::<Error>(&state.pool, &state.clock, call).await? {
        Begun::Recorded(answer) => return Ok(answer),
        Begun::Open(open) => open,
    };
    let request = serde_json::to_value(&definition).map_err(|_| Error::Internal("a meter cannot be told"))?;
    let meter = make(&state, &mut open.transaction, organization, definition).await?;
    let decision = Decision::of_caller(&state, &principal, "POST /v1/meters");
    let (before, after) = (Value::Null, json!({"id": meter.id}));
    let change = Change { action: "meter.create", organization: Some(organization), request: &request, before: &before, after: &after };
    audit::record(&state, &mut open.transaction, &decision, &change).await?;
    Ok(open.finish(Answer::json(StatusCode::CREATED, &meter)).await?)
}

/// The organization's meters.
#[utoipa::path(get, path = "/v1/meters", tag = "metering", security(("bearer" = [])),
    responses((status = 200, body = Meters), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(State(state): State<AppState>, Authenticated(principal): Authenticated) -> Result<axum::Json<Meters>, Error> {
    principal.require(Scope::BillingRead)?;
    let mut transaction = state.pool.begin().await?;
    Ok(axum::Json(Meters { data: show_overlaps(of(&mut transaction, principal.organization_id).await?) }))
}

/// Keeps meters from being made while events are taken: an event counts in a meter either when it is taken or when the meter is made.
///
/// # Errors
/// The database's.
pub async fn lock_shared(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock_shared(hashtextextended('meters ' || $1::text, 0))", organization.to_string())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Keeps events from being taken while a meter is made, or counts those that came before it.
///
/// # Errors
/// The database's.
pub async fn lock(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('meters ' || $1::text, 0))", organization.to_string())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn make(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    definition: Definition,
) -> Result<Meter, Error> {
    lock(transaction, organization).await?;
    let others = of(transaction, organization).await?;
    if others.len() >= MOST {
        return Err(Problem::conflict("too_many_meters", "The organization has as many meters as it may").into());
    }
    if others.iter().filter(|other| other.definition.event_type == definition.event_type).count() >= MOST_OF_A_TYPE {
        let problem = Problem::conflict("too_many_meters", "The organization has as many meters of this type of events as it may");
        return Err(problem.field("event_type", format!("must have less than {MOST_OF_A_TYPE} meters")).into());
    }
    let overlaps_with: Vec<MeterId> = others.iter().filter(|other| definition.overlaps(&other.definition)).map(|other| other.id).collect();
    if !overlaps_with.is_empty() && !definition.allow_overlap {
        let names: Vec<String> = overlaps_with.iter().map(ToString::to_string).collect();
        let problem = Problem::conflict("meters_overlap", "An event could count in this meter and in another");
        return Err(problem
            .field("filters", format!("must keep events apart from {}, or allow_overlap must be true", names.join(", ")))
            .into());
    }
    let (id, created_at) = (MeterId::new(&state.clock, &state.random), state.clock.now());
    let meter = Meter { id, definition, overlaps_with, is_complete: false, created_at };
    insert(transaction, organization, &meter).await?;
    // What is soon done is done at once; whoever waits for an answer waits for no more than that.
    let is_complete = earlier::begin(transaction, organization, meter.id).await?;
    Ok(Meter { is_complete, ..meter })
}

async fn insert(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId, meter: &Meter) -> Result<(), Error> {
    let Definition { name, event_type, aggregation, value_path, group_by, filters, .. } = &meter.definition;
    sqlx::query!(
        "insert into meters (id, organization_id, name, event_type, aggregation, value_path, group_by, filters, created_at,
           is_complete, counted_source, counted_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, false, '', '')",
        meter.id.uuid(),
        organization.uuid(),
        name,
        event_type,
        aggregation.as_str(),
        value_path.as_deref(),
        Jsonb(group_by) as _,
        Jsonb(filters) as _,
        meter.created_at
    )
    .execute(&mut **transaction)
    .await
    .map_err(|error| match constraint(&error) {
        Some("meters_name_key") => Problem::conflict("meter_exists", "A meter of this name exists").field("name", "must be new").into(),
        _ => Error::from(error),
    })?;
    Ok(())
}

/// The meters of an organization, by name; with which others each [overlaps](show_overlaps) is not looked at.
///
/// # Errors
/// The database's.
pub async fn of(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId) -> Result<Vec<Meter>, Error> {
    let rows = sqlx::query!(
        r#"select id, name, event_type, aggregation, value_path, group_by as "group_by: Jsonb<Vec<Group>>", filters as "filters: Jsonb<Vec<Filter>>",
             is_complete, created_at from meters where organization_id = $1 order by name"#,
        organization.uuid()
    )
    .fetch_all(&mut **transaction)
    .await?;
    let mut meters = Vec::with_capacity(rows.len());
    for row in rows {
        let aggregation = Aggregation::parse(&row.aggregation).ok_or(Error::Internal("a meter has an unknown aggregation"))?;
        let definition = Definition {
            name: row.name,
            event_type: row.event_type,
            aggregation,
            value_path: row.value_path,
            group_by: row.group_by.0,
            filters: row.filters.0,
            allow_overlap: false,
        };
        let (id, overlaps_with) = (MeterId::from_uuid(row.id), Vec::new());
        meters.push(Meter { id, definition, overlaps_with, is_complete: row.is_complete, created_at: row.created_at });
    }
    Ok(meters)
}

/// Says of each meter with which others it overlaps: all pairs are compared, which is for who asks what there is, and not for each event.
fn show_overlaps(mut meters: Vec<Meter>) -> Vec<Meter> {
    let overlaps = |meter: &Meter| {
        let others = meters.iter().filter(|other| other.id != meter.id && meter.definition.overlaps(&other.definition));
        others.map(|other| other.id).collect::<Vec<_>>()
    };
    let overlapping: Vec<Vec<MeterId>> = meters.iter().map(overlaps).collect();
    for (meter, overlaps) in meters.iter_mut().zip(overlapping) {
        meter.definition.allow_overlap = !overlaps.is_empty();
        meter.overlaps_with = overlaps;
    }
    meters
}
