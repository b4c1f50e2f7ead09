//! The private reservation API: a hold before the call, and its end afterwards.

mod expiry;
mod store;
mod sweeper;

use axum::extract::State;
use chassis::http::{Json, Path};
use chassis::in_transaction;
use contracts::ReservationId;
use contracts::billing::{Reservation, ReservationRequest, SCOPE_RESERVATIONS_WRITE, SettleRequest, Settlement, VoidRequest};
use http::StatusCode;
use identity::CallingService;

use crate::error::Error;
use crate::leases;
use crate::state::AppState;
use crate::usage::{self, Used};

pub use expiry::{free, free_all};
pub use store::{Held, find, resolve};
pub use sweeper::{sweep, sweep_until};

/// What ended leases hold comes back first, then what lies in others, and somebody may be faster each time.
const TRIES: usize = 4;

/// Hold the worst-case cost of a request.
pub async fn create(
    State(state): State<AppState>,
    caller: CallingService,
    Json(request): Json<ReservationRequest>,
) -> Result<(StatusCode, axum::Json<Reservation>), Error> {
    caller.require(SCOPE_RESERVATIONS_WRITE)?;
    Ok((StatusCode::CREATED, axum::Json(reserve(&state, &request).await?)))
}

/// Holds it from the wallet, and where that does not reach, from what lies unused in leases: a lease is spent by whoever comes first.
async fn reserve(state: &AppState, request: &ReservationRequest) -> Result<Reservation, Error> {
    let mut missing = 0;
    for _ in 0..TRIES {
        match in_transaction!(state.pool, |transaction| { store::reserve(state, transaction, request, &mut missing).await }) {
            Err(Error::InsufficientFunds) => {}
            done => return done,
        }
        if !leases::make_room(state, request.organization_id, &request.model, missing).await? {
            break;
        }
    }
    Err(Error::InsufficientFunds)
}

/// Post what was used and give the rest back.
pub async fn settle(
    State(state): State<AppState>,
    caller: CallingService,
    Path(id): Path<ReservationId>,
    Json(request): Json<SettleRequest>,
) -> Result<axum::Json<Settlement>, Error> {
    caller.require(SCOPE_RESERVATIONS_WRITE)?;
    let settlement = in_transaction!(state.pool, |transaction| {
        let held = store::find(transaction, id).await?.ok_or(Error::NotFound)?;
        let used = Used::from_request(&request);
        usage::settle(&state, transaction, &held, &used).await
    })?;
    Ok(axum::Json(settlement))
}

/// Give the whole hold back: nothing was used.
pub async fn void(
    State(state): State<AppState>,
    caller: CallingService,
    Path(id): Path<ReservationId>,
    Json(request): Json<VoidRequest>,
) -> Result<StatusCode, Error> {
    caller.require(SCOPE_RESERVATIONS_WRITE)?;
    in_transaction!(state.pool, |transaction| { store::void(&state, transaction, id).await })?;
    tracing::info!(reservation.id = %id, reason = request.reason, "a reservation was voided");
    Ok(StatusCode::NO_CONTENT)
}
