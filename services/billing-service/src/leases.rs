//! Leases: money that chat-service spends without asking for each request. The hold is here, the remainder is in Redis.
//!
//! Postgres is the truth: a lease is filled there first and in Redis afterwards, by its total, so that a call which breaks off between
//! the two is made good by the next one. What is left comes back in two steps: what Redis says is left when it is closed, and the rest
//! when none of its requests can be in flight any more. A lease that Redis has lost comes back in the second step alone.

mod closing;
mod fill;
mod flights;
pub mod retention;
mod sizing;
mod store;

use axum::extract::State;
use chassis::http::Json;
use contracts::LeaseId;
use contracts::billing::Settlement;
use contracts::leases::{Lease, LeaseRequest, SCOPE_LEASES_WRITE};
use contracts::usage::UsageEvent;
use identity::{CallingService, OrganizationId};

use crate::error::Error;
use crate::state::AppState;
use crate::usage;

pub use closing::{sweep as sweep_leases, sweep_until as sweep_leases_until};
pub use flights::{sweep as sweep_flights, sweep_until as sweep_flights_until};
pub use store::{LeaseHold, lock_holds, update_holds};

/// Fill an organization's lease.
pub async fn create(
    State(state): State<AppState>,
    caller: CallingService,
    Json(request): Json<LeaseRequest>,
) -> Result<axum::Json<Lease>, Error> {
    caller.require(SCOPE_LEASES_WRITE)?;
    Ok(axum::Json(fill::fill(&state, &request).await?))
}

/// What of an organization's leases no request has taken, in micro-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unspent {
    /// Of the one for all requests.
    pub all: i64,
    /// Of those for single models.
    pub models: i64,
}

/// A lease that can be filled, and what of it no request has taken, in micro-units.
struct Idle {
    id: LeaseId,
    model: Option<String>,
    remaining: i64,
}

/// None when Redis does not say.
async fn idle(state: &AppState, organization: OrganizationId) -> Result<Option<Vec<Idle>>, Error> {
    let active = sqlx::query!(
        "select id, model, held_micros from leases where organization_id = $1 and state in ('opening', 'open') order by id",
        organization.uuid()
    );
    let mut idle = Vec::new();
    for lease in active.fetch_all(&state.pool).await? {
        let remaining = match state.admissions.remaining(organization, lease.model.as_deref()).await {
            Ok(remaining) => remaining,
            Err(error) => {
                tracing::warn!(error.message = error.category(), "what is left of a lease is not known");
                return Ok(None);
            }
        };
        let remaining = remaining.filter(|(id, _)| id.uuid() == lease.id).map_or(0, |(_, remaining)| remaining.clamp(0, lease.held_micros));
        idle.push(Idle { id: LeaseId::from_uuid(lease.id), model: lease.model, remaining });
    }
    Ok(Some(idle))
}

/// What of an organization's leases no request has taken. It is held in the ledger and can be spent all the same. None when Redis does not
/// say.
///
/// # Errors
/// The database's.
pub async fn unspent(state: &AppState, organization: OrganizationId) -> Result<Option<Unspent>, Error> {
    let Some(idle) = idle(state, organization).await? else { return Ok(None) };
    let of = |has_model: bool| idle.iter().filter(|lease| lease.model.is_some() == has_model).map(|lease| lease.remaining).sum();
    Ok(Some(Unspent { all: of(false), models: of(true) }))
}

/// Gives back what an organization's leases hold of which nothing can be in flight any more, whether or not the sweeper has been there
/// [B-42]; whether there were any.
///
/// # Errors
/// The database's.
pub async fn drain(state: &AppState, organization: OrganizationId) -> Result<bool, Error> {
    let drained = sqlx::query_scalar!(
        "select id from leases where organization_id = $1 and state in ('draining', 'lost') and held_micros > 0 and drained_at <= $2",
        organization.uuid(),
        state.clock.now()
    );
    let drained = drained.fetch_all(&state.pool).await?;
    for id in &drained {
        closing::drain(state, LeaseId::from_uuid(*id)).await?;
    }
    Ok(!drained.is_empty())
}

/// Has credit that lies in an organization's leases go back to its wallet, where `missing` micro-units are missing for a hold of another kind, of a
/// request with this model: what ended leases hold, and then what no request has taken of the others, if that reaches. Whether to look again.
///
/// # Errors
/// The database's; Redis', while a lease is closed there; [`Error::LeaseUnavailable`] while what is missing may be bound in a lease that Redis has
/// lost.
pub async fn make_room(state: &AppState, organization: OrganizationId, model: &str, missing: i64) -> Result<bool, Error> {
    if closing::finish_all(state, organization).await? || drain(state, organization).await? {
        return Ok(true);
    }
    let mut idle = idle(state, organization).await?.unwrap_or_default();
    idle.retain(|lease| lease.remaining > 0 && lease.model.as_deref().is_none_or(|own| own == model));
    if idle.iter().map(|lease| lease.remaining).fold(0, i64::saturating_add) < missing {
        return if store::is_any_lost(state, organization).await? { Err(Error::LeaseUnavailable) } else { Ok(false) };
    }
    for lease in &idle {
        store::end_early(state, lease.id).await?;
        closing::close(state, organization, lease.model.as_deref(), lease.id).await?;
    }
    Ok(true)
}

/// What Redis took of its lease for a request; none when Redis has not settled it, or does not answer, which is why the gateway asks us.
async fn taken(state: &AppState, event: &UsageEvent) -> Option<i64> {
    let told = state.admissions.taken(event.organization_id, event.request_id).await;
    told.inspect_err(|error| tracing::info!(error.message = error.category(), "Redis does not say what a request took")).ok().flatten()
}

/// Post what a request used, when the stream cannot be had. Its lease gives up all that was reserved; the unused part goes back to the
/// wallet. Unless Redis had settled it without the gateway's hearing of it: then that part is in the lease again, and not given back twice.
pub async fn settle(
    State(state): State<AppState>,
    caller: CallingService,
    Json(event): Json<UsageEvent>,
) -> Result<axum::Json<Settlement>, Error> {
    caller.require(SCOPE_LEASES_WRITE)?;
    let (told, lease) = (taken(&state, &event).await, event.lease_id);
    let taken = told.unwrap_or(event.reserved_micros);
    if told.is_none() {
        // Redis may have it in its queue and return the unused part too: such a lease ends before that is promised to anybody, and before the
        // posting, after which nobody might come to it.
        store::end_early(&state, lease).await?;
    }
    let posted = usage::Posted { event, taken, trace_id: chassis::telemetry::trace_id(), sums: Vec::new() };
    Ok(axum::Json(usage::post_one(&state, posted).await?))
}
