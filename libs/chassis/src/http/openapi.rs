//! The document of a public API: what its routes say, and what holds for all of them.

use http::StatusCode;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, RefOr, ResponseBuilder};

/// The body in which a service tells what went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorShape {
    /// The media type.
    pub media: &'static str,
    /// Its schema, by its name among the components.
    pub schema: &'static str,
}

/// Problem details (RFC 9457).
pub const PROBLEM: ErrorShape = ErrorShape { media: "application/problem+json", schema: "ProblemBody" };

const JSON: &str = "application/json";
const ANY: &str = "*/*";

/// As `OpenAPI` 3.1 JSON, with the scheme `bearer`, with ids of operations that no other has, with problems as what they are, and with the answers
/// that any route may give where it does not say them itself: what the extractors and the edge refuse, 500, and 503 while a dependency is away
/// or too much is under way.
#[must_use]
pub fn document(mut api: OpenApi, errors: ErrorShape) -> String {
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    api.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    open_what_is_extended(&mut api);
    let paths = api.paths.paths.iter_mut();
    for (path, method, operation) in
        paths.flat_map(|(path, item)| operations(item).map(move |(method, operation)| (path, method, operation)))
    {
        operation.operation_id = Some(operation_id(method, path));
        for (status, description) in anywhere(operation, errors) {
            let response = ResponseBuilder::new().description(description).content(errors.media, content(errors)).build();
            operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
        }
        for (status, response) in &mut operation.responses.responses {
            let RefOr::T(response) = response else { continue };
            if response.description.is_empty() {
                response.description = reason(status).to_owned();
            }
            if let Some(problem) = response.content.get(JSON).filter(|content| is_problem(content)).cloned() {
                response.content.swap_remove(JSON);
                response.content.insert(PROBLEM.media.to_owned(), problem);
            }
        }
    }
    api.to_pretty_json().unwrap_or_default() + "\n"
}

/// What a status says by itself (RFC 9110): a description must be there.
fn reason(status: &str) -> &'static str {
    StatusCode::from_bytes(status.as_bytes()).ok().and_then(|status| status.canonical_reason()).unwrap_or("Another answer")
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let all = [("get", get), ("put", put), ("post", post), ("delete", delete), ("patch", patch)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The specification wants an id that no other operation has, and the names of functions are `list` and `create` again and again:
/// `delete_budgets_id` for `DELETE /v1/budgets/{id}`.
fn operation_id(method: &str, path: &str) -> String {
    let plain = |part: &str| part.trim_matches(['{', '}', '.']).replace(['-', '.'], "_");
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "v1")).map(plain);
    parts.fold(method.to_owned(), |id, part| id + "_" + &part)
}

/// A schema that takes no other fields cannot be a part of one that has more of them: whoever reads both would refuse every answer.
fn open_what_is_extended(api: &mut OpenApi) {
    let Some(components) = &mut api.components else { return };
    let parts = components.schemas.values().filter_map(|schema| match schema {
        RefOr::T(Schema::AllOf(all)) => Some(&all.items),
        _ => None,
    });
    let extended: Vec<String> = parts
        .flatten()
        .filter_map(|part| match part {
            RefOr::Ref(part) => part.ref_location.rsplit('/').next().map(ToOwned::to_owned),
            RefOr::T(_) => None,
        })
        .collect();
    for name in extended {
        if let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(&name) {
            object.additional_properties = None;
        }
    }
}

fn content(errors: ErrorShape) -> Content {
    Content::new(Some(RefOr::Ref(utoipa::openapi::Ref::from_schema_name(errors.schema))))
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let schema = match content {
        RefOr::T(content) => content.schema.as_ref(),
        RefOr::Ref(_) => None,
    };
    matches!(schema, Some(RefOr::Ref(schema)) if schema.ref_location.rsplit('/').next() == Some(PROBLEM.schema))
}

/// What a route may answer because of what it takes.
fn anywhere(operation: &Operation, errors: ErrorShape) -> Vec<(&'static str, &'static str)> {
    let mut answers = vec![("500", "Something went wrong on our side."), ("503", "Not at the moment; `Retry-After` says when.")];
    if operation.security.as_ref().is_some_and(|security| !security.is_empty()) {
        answers.push(("401", "There is no token, or it is not valid."));
    }
    let takes = |kind: &ParameterIn| {
        let of_kind = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == *kind);
        operation.parameters.iter().flatten().any(of_kind)
    };
    if takes(&ParameterIn::Path) {
        answers.push(("404", "There is no such thing, or it is another organization's."));
    }
    if takes(&ParameterIn::Query) {
        answers.push(("400", "The query string cannot be read."));
    }
    if let Some(body) = &operation.request_body {
        answers.extend([
            ("400", "The body cannot be read."),
            ("408", "The body did not come in time."),
            ("413", "The body is larger than this service takes."),
        ]);
        // Of the extractor of JSON bodies, whose refusals are problems; not of who reads whatever comes.
        let takes_any = matches!(body, RefOr::T(body) if body.content.contains_key(ANY));
        if errors == PROBLEM && !takes_any {
            answers.push(("415", "The body is of another type than this takes."));
            answers.push(("422", "The request breaks a rule; `errors` names the fields and the rules."));
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_says_what_any_may_answer_and_keeps_what_it_says_itself() {
        let own = r##"{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {
            "/open": {"get": {"operationId": "list", "responses": {}}},
            "/raw": {"post": {"operationId": "raw", "requestBody": {"content": {"*/*": {}}}, "responses": {"201": {"description": ""}}}},
            "/closed": {"post": {"security": [{"bearer": []}], "responses": {"503": {"description": "its own", "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}}}}},
            "/found/{id}": {"put": {"parameters": [
                {"name": "id", "in": "path", "required": true}, {"name": "limit", "in": "query", "required": false}],
                "requestBody": {"content": {"application/json": {}}}, "responses": {}}}}, "components": {"schemas": {
                "Closed": {"type": "object", "additionalProperties": false}, "Other": {"type": "object", "additionalProperties": false},
                "Extended": {"allOf": [{"$ref": "#/components/schemas/Closed"}, {"type": "object"}]}}}}"##;
        let told: serde_json::Value =
            serde_json::from_str(&document(serde_json::from_str(own).expect("a document"), PROBLEM)).expect("JSON");
        let of = |path: &str, method: &str| {
            let responses = told["paths"][path][method]["responses"].as_object().expect("an object");
            responses.iter().map(|(status, response)| (status.clone(), response["description"].clone())).collect::<Vec<_>>()
        };
        let (broken, away) = ("Something went wrong on our side.", "Not at the moment; `Retry-After` says when.");
        assert_eq!(of("/open", "get"), [("500".to_owned(), broken.into()), ("503".to_owned(), away.into())]);
        let refused = "There is no token, or it is not valid.";
        let expected = [("401".to_owned(), refused.into()), ("500".to_owned(), broken.into()), ("503".to_owned(), "its own".into())];
        assert_eq!(of("/closed", "post"), expected);
        let statuses: Vec<_> = of("/found/{id}", "put").into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, ["400", "404", "408", "413", "415", "422", "500", "503"]);
        let created = [("201".to_owned(), "Created".into())];
        assert_eq!(of("/raw", "post").iter().filter(|(status, _)| status.starts_with('2')).cloned().collect::<Vec<_>>(), created);
        assert_eq!(of("/raw", "post").iter().map(|(status, _)| &**status).collect::<Vec<_>>(), ["201", "400", "408", "413", "500", "503"]);
        let media = told["paths"]["/closed"]["post"]["responses"]["503"]["content"].as_object().expect("a content");
        assert_eq!(media.keys().collect::<Vec<_>>(), ["application/problem+json"]);
        assert_eq!(told["paths"]["/found/{id}"]["put"]["operationId"], "put_found_id");
        assert_eq!(operation_id("post", "/v1/webhook-endpoints/{id}/rotate-secret"), "post_webhook_endpoints_id_rotate_secret");
        assert_eq!(operation_id("get", "/.well-known/jwks.json"), "get_well_known_jwks_json");
        let closed = |name: &str| told["components"]["schemas"][name]["additionalProperties"].clone();
        assert_eq!((closed("Closed"), closed("Other")), (serde_json::Value::Null, false.into()));
        assert_eq!(told["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    }
}
