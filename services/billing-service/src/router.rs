//! Every route, in order: the table of contents of the service.

use axum::Router;
use axum::routing::{get, post};
use chassis::http::openapi::{PROBLEM, document};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;
use crate::{
    admin, balance, budgets, catalog, checkouts, entitlements, grants, invoices, leases, ledger, margin, metering, operations, portal,
    rates, reservations, statements, stripe, subscriptions, top_ups, usage,
};

#[derive(OpenApi)]
#[openapi(info(title = "Trivet billing-service", description = "Balance, usage, ledger and Stripe.", license(name = "Apache-2.0")))]
struct Api;

fn public() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Api::openapi())
        // What the organization has, what it used, and every posting behind that.
        .routes(routes!(balance::get))
        .routes(routes!(grants::list))
        .routes(routes!(usage::list))
        .routes(routes!(usage::export))
        .routes(routes!(ledger::list))
        .routes(routes!(statements::get))
        // What is sold, what the organization subscribed to, and what that lets it do.
        .routes(routes!(catalog::api::list))
        .routes(routes!(subscriptions::api::get))
        .routes(routes!(subscriptions::api::preview))
        .routes(routes!(entitlements::api::get))
        // How it is paid for.
        .routes(routes!(subscriptions::changes::change))
        .routes(routes!(checkouts::create))
        .routes(routes!(portal::create))
        .routes(routes!(portal::payment_methods))
        .routes(routes!(invoices::list))
        .routes(routes!(top_ups::api::get, top_ups::api::put))
        // What the organization wants to spend at most, and where it is told.
        .routes(routes!(budgets::api::list, budgets::api::create))
        .routes(routes!(budgets::api::change, budgets::api::delete))
        .routes(routes!(budgets::alerts::list::list))
        .routes(routes!(budgets::webhooks::endpoints::list, budgets::webhooks::endpoints::create))
        .routes(routes!(budgets::webhooks::endpoints::delete))
        .routes(routes!(budgets::webhooks::secrets::rotate))
        .routes(routes!(budgets::webhooks::deliveries::list))
        .routes(routes!(budgets::webhooks::deliveries::replay))
        // Usage of anything else: events from other services, and the meters that count them.
        .routes(routes!(metering::receive))
        .routes(routes!(metering::create, metering::list))
        .routes(routes!(metering::usage))
        // Events from Stripe.
        .routes(routes!(stripe::webhook::receive))
}

fn private() -> Router<AppState> {
    Router::new()
        // A gateway holds money for many requests, prices them by itself, and reports what they used when it cannot use the stream.
        .route("/internal/v1/leases", post(leases::create))
        .route("/internal/v1/settlements", post(leases::settle))
        .route("/internal/v1/rate-cards", get(rates::list))
        // Others hold it for each call.
        .route("/internal/v1/reservations", post(reservations::create))
        .route("/internal/v1/reservations/{id}/settle", post(reservations::settle))
        .route("/internal/v1/reservations/{id}/void", post(reservations::void))
        // What an organization may do, for those who enforce it.
        .route("/internal/v1/entitlements/{organization}", get(entitlements::api::internal))
        // Usage of anything else, from our own services.
        .route("/internal/v1/usage-events", post(metering::receive_internal))
        // What operators look at and decide, with the verbs of the command line.
        .route("/v1/admin/margin", get(margin::get))
        .route("/v1/admin/margin/alerts", get(margin::list_alerts))
        .route("/v1/admin/status", get(operations::get))
        .route("/v1/admin/wallets/{organization}", get(admin::api::wallet))
        .route("/v1/admin/wallets/{organization}/changes", post(admin::api::change))
        .route("/v1/admin/subscriptions/{organization}", get(admin::subscriptions_api::list))
        .route("/v1/admin/subscriptions/{organization}/changes", post(admin::subscriptions_api::change))
        .route("/v1/admin/budgets/{organization}", get(admin::api::budgets))
        .route("/v1/admin/ledger/verification", get(admin::api::verify))
        .route("/v1/admin/ledger/trial-balance", get(admin::api::trial_balance))
        .route("/v1/admin/ledger/journal", get(admin::api::journal))
        .route("/v1/admin/rates", get(admin::rates_api::export))
        .route("/v1/admin/rates/imports", post(admin::rates_api::import))
        .route("/v1/admin/rates/models/{model}", get(admin::rates_api::show))
        .route("/v1/admin/catalog", post(admin::api::catalog))
        .route("/v1/admin/catalog/move", post(admin::api::move_plan))
        .route("/v1/admin/usage", get(admin::usage_api::export))
        .route("/v1/admin/usage/rebuild", post(admin::usage_api::rebuild))
        .route("/v1/admin/usage/verification", get(admin::usage_api::verify))
        .route("/v1/admin/stripe/reconcile", post(admin::reconcile_api::reconcile))
        .route("/v1/admin/stripe/replay", post(admin::api::replay_stripe))
        .route("/v1/admin/stripe/meters", get(admin::meters_api::list).post(admin::meters_api::add))
        .route("/v1/admin/stripe/meters/{event_name}/stop", post(admin::meters_api::stop))
        .route("/v1/admin/stripe/meter-reports/parked", get(admin::meters_api::parked))
        .route("/v1/admin/stripe/meter-reports/replay", post(admin::meters_api::replay))
        .route("/v1/admin/streams/replay", post(admin::api::replay_messages))
        .route("/v1/admin/audit", get(admin::api::log))
}

/// The public and the private routes.
pub fn routers(state: AppState) -> (Router, Router) {
    let (router, _) = public().split_for_parts();
    let text = openapi();
    let router = router.route("/openapi.json", get(|| async { ([("content-type", "application/json")], text) }));
    (router.with_state(state.clone()), private().with_state(state))
}

/// The public API as OpenAPI 3.1 JSON.
#[must_use]
pub fn openapi() -> String {
    document(public().into_openapi(), PROBLEM)
}
