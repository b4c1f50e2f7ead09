//! What listens: the API, the pages for a browser, and the routes for tests.

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get, post};

use crate::checkout::pages;
use crate::simulator::Simulator;
use crate::{control, dispatch, documents, invoices, portal};

/// Larger than any request of the API.
const MAX_BODY_BYTES: usize = 1024 * 1024;

pub(crate) fn router(simulator: Simulator) -> Router {
    Router::new()
        // The API; its endpoints are in `routes`.
        .route("/v1/{*path}", any(dispatch::dispatch))
        // Pages for a browser.
        .route("/c/pay/{id}", get(pages::show).post(pages::press))
        .route("/p/session/{id}", get(portal::pages::show).post(portal::pages::cancel))
        .route("/p/session/{id}/card", post(portal::pages::set_card))
        .route("/invoices/{id}", get(invoices::pages::show).post(invoices::pages::press))
        .route("/invoices/{id}/pdf", get(documents::invoice))
        .route("/credit_notes/{id}/pdf", get(documents::credit_note))
        .route("/_simulator/3ds/{id}", get(pages::show_challenge).post(pages::answer_challenge))
        // For tests and those who run it.
        .route("/_simulator/clock", get(control::clock))
        .route("/_simulator/clock/advance", post(control::advance))
        .route("/_simulator/knobs", get(control::knobs).post(control::set_knobs))
        .route("/_simulator/webhooks/release", post(control::release))
        .route("/_simulator/webhooks/deliver", post(control::deliver))
        .route("/_simulator/deliveries", get(control::deliveries))
        .route("/_simulator/ledger", get(control::ledger))
        .route("/_simulator/checkout/sessions/{id}/complete", post(control::complete))
        .route("/_simulator/payment_intents/{id}/end", post(control::end_payment))
        .route("/_simulator/disputes", post(control::open_dispute))
        .route("/_simulator/disputes/{id}/close", post(control::close_dispute))
        .route("/health", get(control::health))
        .layer(middleware::from_fn_with_state(simulator.clone(), after_the_file))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(simulator)
}

/// Nobody is told what may yet be forgotten.
async fn after_the_file(State(simulator): State<Simulator>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    simulator.kept().await;
    response
}
