//! The hold of a call: placed before the call, and given back when nobody knows whether there is one.

use std::time::Duration;

use chrono::TimeDelta;
use contracts::billing::{Reservation, ReservationRequest, ReserveError, SettleError};
use tracing::Instrument;

use super::call::Call;
use crate::settlement::Slot;
use crate::state::AppState;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Many calls may wait for the same outage of billing-service to end.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// What the last try may take when the process ends; the host gives its tasks ten seconds.
const LAST_TRY: Duration = Duration::from_secs(8);

impl Call {
    /// The most that the request can cost, in billing-service's terms.
    pub(super) fn reservation(&self) -> ReservationRequest {
        let allowances = self.model.allowances();
        let life = self.state.provider_config.deadline.0 + self.state.limits.reservation_margin.0;
        ReservationRequest {
            request_id: self.id,
            organization_id: self.caller.organization_id,
            api_key_id: self.caller.api_key_id(),
            user_id: self.caller.user_id(),
            model: self.model.id.clone(),
            provider: self.state.provider_config.name.clone(),
            max_input_tokens: self.request.max_input_tokens(&allowances),
            max_output_tokens: self.request.max_output_tokens(&allowances),
            audio: self.request.audio(),
            expires_at: self.started_at + TimeDelta::from_std(life).unwrap_or(TimeDelta::MAX),
        }
    }

    /// Holds it.
    pub(super) async fn reserve(&self, request: &ReservationRequest) -> Result<Reservation, ReserveError> {
        let span = tracing::info_span!("reserve", otel.kind = "client");
        self.state.billing.reserve(request).instrument(span).await
    }
}

/// Gives back a hold that may have been placed although no answer came, so that the money of a call that was never made is not kept
/// until the hold's own end. The slot bounds how many of these there are: without one no call begins.
pub(super) async fn give_back(state: AppState, request: ReservationRequest, slot: Slot) {
    let mut pause = FIRST_PAUSE;
    loop {
        let trying = async {
            tokio::time::sleep(pause).await;
            state.clock.now() >= request.expires_at || is_given_back(&state, &request).await
        };
        tokio::select! {
            over = trying => {
                if over {
                    return;
                }
            }
            () = state.stopping.cancelled() => break,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    // The settlements of this process must not wait for us.
    drop(slot);
    if !tokio::time::timeout(LAST_TRY, is_given_back(&state, &request)).await.unwrap_or(false) {
        tracing::warn!(request.id = %request.request_id, "a hold that may exist was not given back: it ends at its deadline");
    }
}

/// Asks for the hold again, which gives the first one, and voids it; false when that is to be tried again.
async fn is_given_back(state: &AppState, request: &ReservationRequest) -> bool {
    match state.billing.reserve(request).await {
        Ok(hold) => state.billing.void(hold.id, "the call was not made").await != Err(SettleError::Unavailable),
        Err(ReserveError::Unavailable) => false,
        // It would have been given, if it were there.
        Err(ReserveError::InsufficientFunds | ReserveError::ModelNotPriced) => true,
    }
}
