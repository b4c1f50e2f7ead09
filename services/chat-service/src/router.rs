//! Every route, in order: the table of contents of the service.

use axum::Router;
use axum::routing::get;
use chassis::http::openapi::{ErrorShape, document};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;
use crate::{completions, models};

#[derive(OpenApi)]
#[openapi(info(
    title = "Trivet chat-service",
    description = "OpenAI-shaped chat completions, metered and paid.",
    license(name = "Apache-2.0")
))]
struct Api;

fn public() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Api::openapi())
        // Calls of models: all of them through `completions::admission`.
        .routes(routes!(completions::create))
        // What can be called.
        .routes(routes!(models::list))
        .routes(routes!(models::get))
}

/// The public routes.
pub fn public_router(state: AppState) -> Router {
    let (router, _) = public().split_for_parts();
    let text = openapi();
    let router = router.route("/openapi.json", get(|| async { ([("content-type", "application/json")], text) }));
    router.with_state(state)
}

/// The public API as `OpenAPI` 3.1 JSON.
#[must_use]
pub fn openapi() -> String {
    document(public().into_openapi(), ErrorShape { media: "application/json", schema: "ErrorBody" })
}
