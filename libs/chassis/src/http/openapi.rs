//! The document of a public API: what its routes say, and what holds for all of them.

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, RefOr, Response, ResponseBuilder};

/// The body of an error that is no answer of a route's own.
const PROBLEM: &str = "#/components/schemas/ProblemBody";

/// As `OpenAPI` 3.1 JSON, with the scheme `bearer`, and with the answers that any route may give where it does not say them itself:
/// 401 to a caller without a token that is valid, where one is asked for, and 503 while a dependency is away or too much is under way.
#[must_use]
pub fn document(mut api: OpenApi) -> String {
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    api.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    for operation in api.paths.paths.values_mut().flat_map(operations) {
        if operation.security.as_ref().is_some_and(|security| !security.is_empty()) {
            add(operation, "401", "There is no token, or it is not valid.");
        }
        add(operation, "503", "Not at the moment; `Retry-After` says when.");
    }
    api.to_pretty_json().unwrap_or_default() + "\n"
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().filter_map(Option::as_mut)
}

fn add(operation: &mut Operation, status: &str, description: &str) {
    let response = || -> Response {
        let body = Content::new(Some(RefOr::Ref(utoipa::openapi::Ref::new(PROBLEM))));
        ResponseBuilder::new().description(description).content("application/problem+json", body).build()
    };
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(response()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_says_what_any_may_answer_and_keeps_what_it_says_itself() {
        let own = r#"{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {
            "/open": {"get": {"responses": {}}},
            "/closed": {"post": {"security": [{"bearer": []}], "responses": {"503": {"description": "its own"}}}}}}"#;
        let told: serde_json::Value = serde_json::from_str(&document(serde_json::from_str(own).expect("a document"))).expect("JSON");
        let of = |path: &str, method: &str| {
            let responses = told["paths"][path][method]["responses"].as_object().expect("an object");
            responses.iter().map(|(status, response)| (status.clone(), response["description"].clone())).collect::<Vec<_>>()
        };
        let (away, refused) = ("Not at the moment; `Retry-After` says when.", "There is no token, or it is not valid.");
        assert_eq!(of("/open", "get"), [("503".to_owned(), away.into())]);
        assert_eq!(of("/closed", "post"), [("401".to_owned(), refused.into()), ("503".to_owned(), "its own".into())]);
        assert_eq!(told["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    }
}
