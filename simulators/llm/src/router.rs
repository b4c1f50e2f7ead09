//! Every route of the simulator.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::simulator::Simulator;
use crate::{completions, control, models};

/// Largest prompt, in bytes: images are sent within it.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

pub(crate) fn router(simulator: Simulator) -> Router {
    Router::new()
        // The provider's API.
        .route("/v1/chat/completions", post(completions::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::find))
        // For tests and those who run it.
        .route("/ledger", get(control::ledger))
        .route("/knobs", get(control::knobs).post(control::set_knobs))
        .route("/health", get(control::health))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(simulator)
}
