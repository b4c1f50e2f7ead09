//! The routes for tests: what was done, and what is to be done.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::knobs::Knobs;
use crate::ledger::LedgerPage;
use crate::simulator::Simulator;

/// `{"status":"ok"}`
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    status: &'static str,
}

pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

pub(crate) async fn ledger(State(simulator): State<Simulator>) -> Json<LedgerPage> {
    Json(simulator.ledger.page())
}

pub(crate) async fn knobs(State(simulator): State<Simulator>) -> Json<Knobs> {
    Json(Knobs::clone(&simulator.knobs()))
}

/// Knobs that are not named get their defaults, so that `{}` undoes everything.
pub(crate) async fn set_knobs(State(simulator): State<Simulator>, Json(knobs): Json<Knobs>) -> Json<Knobs> {
    simulator.set_knobs(knobs);
    Json(Knobs::clone(&simulator.knobs()))
}
