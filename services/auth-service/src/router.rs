//! Every route, in order: the table of contents of the service.

use axum::Router;
use axum::routing::{get, post};
use chassis::http::openapi::{PROBLEM, document};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;
use crate::{accounts, administrators, api_keys, discovery, internal, me, sessions};

#[derive(OpenApi)]
#[openapi(info(
    title = "Trivet auth-service",
    description = "Accounts, organizations, sessions and API keys.",
    license(name = "Apache-2.0")
))]
struct Api;

fn public() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Api::openapi())
        // Signing up and who I am.
        .routes(routes!(accounts::create))
        .routes(routes!(administrators::create))
        .routes(routes!(me::get))
        // Logging in, staying logged in, logging out.
        .routes(routes!(sessions::create))
        .routes(routes!(sessions::refresh))
        .routes(routes!(sessions::delete_current))
        // API keys.
        .routes(routes!(api_keys::create, api_keys::list))
        .routes(routes!(api_keys::delete))
        // What others need to verify our tokens.
        .routes(routes!(discovery::jwks))
        .routes(routes!(discovery::configuration))
}

fn private() -> Router<AppState> {
    Router::new()
        .route("/internal/v1/api-keys/verify", post(internal::verify_api_key))
        .route("/internal/v1/service-tokens", post(internal::service_token))
        // Services fetch the keys where they already are.
        .route("/.well-known/jwks.json", get(discovery::jwks))
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
