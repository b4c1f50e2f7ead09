//! The routes for tests: time, faults, deliveries.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::acts::Refused;
use crate::knobs::Knobs;
use crate::ledger::LedgerRow;
use crate::simulator::Simulator;
use crate::webhooks::DeliveryRow;

/// `{"status":"ok"}`
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    status: &'static str,
}

/// The global clock.
#[derive(Debug, Serialize)]
pub(crate) struct Time {
    /// Seconds since 1970.
    now: i64,
}

/// How far to move: by seconds, or to an instant.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Advance {
    Seconds(i64),
    To(i64),
}

/// Events in the order in which they are to be delivered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deliver {
    events: Vec<String>,
}

/// What was answered to each.
#[derive(Debug, Serialize)]
pub(crate) struct Delivered {
    statuses: Vec<Option<u16>>,
}

/// How many events were let go.
#[derive(Debug, Serialize)]
pub(crate) struct Released {
    released: usize,
}

pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

pub(crate) async fn clock(State(simulator): State<Simulator>) -> Json<Time> {
    Json(Time { now: simulator.now() })
}

/// Time does not go back: that is refused.
pub(crate) async fn advance(State(simulator): State<Simulator>, Json(advance): Json<Advance>) -> Result<Json<Time>, StatusCode> {
    let now = simulator.now();
    let to = match advance {
        Advance::Seconds(seconds) => now.checked_add(seconds).ok_or(StatusCode::BAD_REQUEST)?,
        Advance::To(to) => to,
    };
    if to < now {
        return Err(StatusCode::BAD_REQUEST);
    }
    simulator.advance_to(to);
    Ok(Json(Time { now: simulator.now() }))
}

pub(crate) async fn knobs(State(simulator): State<Simulator>) -> Json<Knobs> {
    Json(simulator.knobs())
}

/// Knobs that are not named get their defaults, so that `{}` undoes everything.
pub(crate) async fn set_knobs(State(simulator): State<Simulator>, Json(knobs): Json<Knobs>) -> Json<Knobs> {
    simulator.turn_knobs(|turned| *turned = knobs);
    Json(simulator.knobs())
}

pub(crate) async fn release(State(simulator): State<Simulator>) -> Json<Released> {
    Json(Released { released: simulator.release() })
}

pub(crate) async fn deliver(State(simulator): State<Simulator>, Json(wanted): Json<Deliver>) -> Json<Delivered> {
    Json(Delivered { statuses: simulator.deliver(&wanted.events).await })
}

pub(crate) async fn deliveries(State(simulator): State<Simulator>) -> Json<Vec<DeliveryRow>> {
    Json(simulator.deliveries())
}

/// The card that a session is paid with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Complete {
    #[serde(default = "working_card")]
    payment_method: String,
}

/// How a payment ends that is on its way.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndPayment {
    pays: bool,
}

/// What is disputed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenDispute {
    /// `ch_…` or `pi_…`
    of: String,
    /// In smallest units; all of it by default.
    amount: Option<i64>,
    #[serde(default = "fraudulent")]
    reason: String,
}

/// Who is right.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CloseDispute {
    won: bool,
}

/// An object, or why not.
type Acted = Result<Json<Value>, (StatusCode, String)>;

fn acted(outcome: Result<Value, Refused>) -> Acted {
    outcome.map(Json).map_err(|refused| (StatusCode::CONFLICT, refused.0))
}

pub(crate) async fn ledger(State(simulator): State<Simulator>) -> Json<Vec<LedgerRow>> {
    Json(simulator.ledger())
}

pub(crate) async fn complete(State(simulator): State<Simulator>, Path(id): Path<String>, Json(with): Json<Complete>) -> Acted {
    acted(simulator.complete_checkout(&id, &with.payment_method))
}

pub(crate) async fn end_payment(State(simulator): State<Simulator>, Path(id): Path<String>, Json(end): Json<EndPayment>) -> Acted {
    acted(simulator.end_processing(&id, end.pays))
}

pub(crate) async fn open_dispute(State(simulator): State<Simulator>, Json(wanted): Json<OpenDispute>) -> Acted {
    acted(simulator.open_dispute(&wanted.of, wanted.amount, &wanted.reason))
}

pub(crate) async fn close_dispute(State(simulator): State<Simulator>, Path(id): Path<String>, Json(close): Json<CloseDispute>) -> Acted {
    acted(simulator.close_dispute(&id, close.won))
}

fn working_card() -> String {
    "pm_card_visa".to_owned()
}

fn fraudulent() -> String {
    "fraudulent".to_owned()
}
