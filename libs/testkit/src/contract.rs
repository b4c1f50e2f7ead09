//! The `OpenAPI` document of a service, held against every answer that a test of it gets: what the document does not say, the
//! service must not do, or clients made from the document fail.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::Answer;

/// The operations of one document.
#[derive(Debug)]
pub struct Contract {
    components: Value,
    operations: Vec<Operation>,
}

#[derive(Debug)]
struct Operation {
    id: String,
    method: Method,
    template: String,
    query: Vec<String>,
    request: Option<Request>,
    responses: Vec<(String, Vec<Content>)>,
}

/// What may be sent.
#[derive(Debug)]
struct Request {
    required: bool,
    contents: Vec<Content>,
}

/// What was sent: the media type and the text.
pub type Sent<'s> = (&'s str, &'s str);

/// One media type of a body, and what a body of it must be when it is JSON.
#[derive(Debug)]
struct Content {
    media: String,
    schema: Schema,
}

#[derive(Debug)]
struct Schema {
    source: Value,
    compiled: OnceLock<Validator>,
}

impl Schema {
    fn of(media: &Value) -> Self {
        Self { source: media.get("schema").cloned().unwrap_or(Value::Bool(true)), compiled: OnceLock::new() }
    }

    /// What of this is not as the schema says, one line for each place.
    fn broken_by(&self, components: &Value, instance: &Value) -> Vec<String> {
        let validator = self.compiled.get_or_init(|| {
            let whole = json!({"allOf": [self.source], "components": components});
            jsonschema::draft202012::new(&whole).expect("a schema of the document")
        });
        validator.iter_errors(instance).map(|error| format!("{} at {}", error, error.instance_path())).collect()
    }
}

impl Content {
    fn all_of(holder: &Value) -> Vec<Self> {
        let contents = holder["content"].as_object().into_iter().flatten();
        contents.map(|(media, content)| Self { media: media.clone(), schema: Schema::of(content) }).collect()
    }

    fn is_of(&self, media: &str) -> bool {
        self.media == "*/*" || self.media == media
    }
}

/// A media type without its parameters.
fn plain(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

impl Contract {
    /// The contract that this document states.
    ///
    /// # Panics
    /// When it is no document, or two of its operations have one id.
    #[must_use]
    pub fn of(document: &str) -> Arc<Self> {
        let document: Value = serde_json::from_str(document).expect("a document");
        let paths = document["paths"].as_object().expect("paths");
        let operations = paths.iter().flat_map(|(template, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.filter_map(|(method, operation)| Operation::of(template, method, operation))
        });
        let operations: Vec<Operation> = operations.collect();
        let ids: HashSet<&str> = operations.iter().map(|operation| operation.id.as_str()).collect();
        assert_eq!(ids.len(), operations.len(), "two operations have one id: {ids:?}");
        Arc::new(Self { components: document["components"].clone(), operations })
    }

    /// The same, but for the JSON that is passed on at this path as somebody else made it.
    ///
    /// # Panics
    /// When it is shared already.
    #[must_use]
    pub fn but_for(mut self: Arc<Self>, template: &str) -> Arc<Self> {
        let contract = Arc::get_mut(&mut self).expect("nobody else has it");
        let passing = contract.operations.iter_mut().filter(|operation| operation.template == template);
        let contents = passing.flat_map(|operation| &mut operation.responses).filter(|(status, _)| status == "200");
        for content in contents.flat_map(|(_, contents)| contents) {
            content.schema = Schema { source: Value::Bool(true), compiled: OnceLock::new() };
        }
        self
    }

    /// Holds an answer, and what was asked for when it was taken, against the document.
    ///
    /// # Panics
    /// When the document does not say that a request of this method and path may be answered so.
    pub fn hold(&self, method: &Method, path: &str, sent: Option<Sent<'_>>, answer: &Answer) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let asked = format!("{method} {path} was answered {}", answer.status);
        let of_path = || self.operations.iter().filter(|operation| operation.is_at(path));
        // Asked by who runs the service, not by its users.
        if matches!(path, "/health" | "/ready" | "/openapi.json") {
            return;
        }
        let Some(operation) = of_path().find(|operation| operation.method == *method) else {
            let expected = if of_path().next().is_some() { 405 } else { 404 };
            assert_eq!(answer.status.as_u16(), expected, "{asked}, and the document has no such operation");
            return;
        };
        operation.hold_answer(&self.components, &asked, answer);
        if answer.status.is_success() {
            operation.hold_request(&self.components, &asked, query, sent);
        }
    }

    /// Holds what comes in another way than as a JSON answer, as the parts of a stream, against a schema by its name among the components.
    ///
    /// # Panics
    /// When the schema does not allow it.
    pub fn hold_part(&self, schema: &str, part: &Value) {
        let reference = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
        let broken = Schema::of(&reference).broken_by(&self.components, part);
        assert!(broken.is_empty(), "{part} is no {schema}: {broken:?}");
    }
}

impl Operation {
    fn of(template: &str, method: &str, operation: &Value) -> Option<Self> {
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).ok()?;
        let responses = operation["responses"].as_object()?.iter().map(|(status, response)| {
            assert_ne!(response["description"].as_str().unwrap_or_default(), "", "{template} does not say what {status} is");
            (status.clone(), Content::all_of(response))
        });
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let query = parameters.filter(|parameter| parameter["in"] == "query").filter_map(|parameter| parameter["name"].as_str());
        let request = operation.get("requestBody");
        let request = request.map(|body| Request { required: body["required"] == true, contents: Content::all_of(body) });
        Some(Self {
            id: operation["operationId"].as_str()?.to_owned(),
            method,
            template: template.to_owned(),
            query: query.map(str::to_owned).collect(),
            request,
            responses: responses.collect(),
        })
    }

    fn is_at(&self, path: &str) -> bool {
        let (mut of_template, mut of_path) = (self.template.split('/'), path.split('/'));
        loop {
            match (of_template.next(), of_path.next()) {
                (None, None) => return true,
                (Some(expected), Some(actual)) if expected == actual || (expected.starts_with('{') && !actual.is_empty()) => {}
                _ => return false,
            }
        }
    }

    fn hold_answer(&self, components: &Value, asked: &str, answer: &Answer) {
        let said = self.responses.iter().find(|(status, _)| *status == answer.status.as_str());
        let Some((_, contents)) = said else {
            panic!("{asked}, which is not among the answers of {} {} in the document: {}", self.method, self.template, answer.text)
        };
        if matches!(answer.status.as_u16(), 429 | 503) {
            assert_ne!(answer.header("retry-after"), "", "{asked} without a Retry-After: {}", answer.text);
        }
        let media = plain(answer.header("content-type"));
        if contents.is_empty() {
            assert_eq!(answer.text, "", "{asked} with a body, and the document says that there is none");
            return;
        }
        let Some(content) = contents.iter().find(|content| content.media == media) else {
            panic!("{asked} as {media:?}, which the document does not say of {} {}: {}", self.method, self.template, answer.text)
        };
        if media.ends_with("json") {
            let broken = content.schema.broken_by(components, &answer.json);
            assert!(broken.is_empty(), "{asked} with what is not as the document says: {broken:?} in {}", answer.text);
        }
    }

    fn hold_request(&self, components: &Value, asked: &str, query: &str, sent: Option<Sent<'_>>) {
        for name in query.split('&').filter_map(|pair| pair.split('=').next()).filter(|name| !name.is_empty()) {
            assert!(self.query.iter().any(|known| known == name), "{asked} with the parameter {name}, which the document does not say");
        }
        let (request, (content_type, body)) = match (&self.request, sent) {
            (Some(request), Some(sent)) => (request, sent),
            (None, Some(_)) => panic!("{asked} with a body, and the document says that there is none"),
            (request, None) => {
                assert!(!request.as_ref().is_some_and(|request| request.required), "{asked} without the body that the document wants");
                return;
            }
        };
        let Some(content) = request.contents.iter().find(|content| content.is_of(plain(content_type))) else {
            panic!("{asked} with a body of {content_type:?}, which the document does not say")
        };
        if content.media.ends_with("json") {
            let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{asked} with {body:?}, which is no JSON: {error}"));
            let broken = content.schema.broken_by(components, &body);
            assert!(broken.is_empty(), "{asked} with a body that the document does not allow: {broken:?} in {body}");
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    const DOCUMENT: &str = r##"{"paths": {
        "/v1/things/{id}": {"get": {"operationId": "get", "parameters": [{"name": "limit", "in": "query"}], "responses": {
            "200": {"description": "a", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
            "204": {"description": "b"},
            "503": {"description": "c", "content": {"application/problem+json": {}}}}},
          "put": {"operationId": "put", "responses": {"204": {"description": "d"}}, "requestBody": {"required": true, "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}}}},
        "components": {"schemas": {"Thing": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}}}"##;

    fn answer(status: u16, headers: &[(&'static str, &str)], text: &str) -> Answer {
        let status = reqwest::StatusCode::from_u16(status).expect("a status");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a header"));
        }
        Answer { status, headers: map, json: serde_json::from_str(text).unwrap_or(Value::Null), text: text.to_owned() }
    }

    /// Whether an answer is as the document says, with what it was asked with.
    fn holds(method: &Method, path: &str, sent: Option<Sent<'_>>, answer: &Answer) -> bool {
        let contract = Contract::of(DOCUMENT);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| contract.hold(method, path, sent, answer))).is_ok()
    }

    /// [B-80]
    #[test]
    fn an_answer_that_the_document_does_not_say_fails_the_test_that_got_it() {
        let of_json = [("content-type", "application/json; charset=utf-8")];
        let problem = [("content-type", "application/problem+json"), ("retry-after", "1")];
        let get = |path, answer: Answer| holds(&Method::GET, path, None, &answer);
        assert!(get("/v1/things/1?limit=2", answer(200, &of_json, r#"{"name": "a"}"#)));
        assert!(get("/v1/things/1", answer(503, &problem, "{}")));
        assert!(get("/v1/things/1", answer(204, &[], "")));
        assert!(get("/v1/nothing", answer(404, &of_json, "{}")));
        assert!(get("/health", answer(200, &of_json, "{}")), "which is for who runs it");
        assert!(!get("/v1/things/1", answer(201, &of_json, r#"{"name": "a"}"#)), "another status");
        assert!(!get("/v1/things/1", answer(200, &of_json, r#"{"nome": "a"}"#)), "another body");
        assert!(!get("/v1/things/1", answer(200, &[("content-type", "text/html")], "<p>")), "another media type");
        assert!(!get("/v1/things/1", answer(204, &of_json, "{}")), "a body where there is none");
        assert!(!get("/v1/things/1", answer(503, &problem[..1], "{}")), "not when to come again");
        assert!(!get("/v1/things/1?limit=2&all=1", answer(200, &of_json, r#"{"name": "a"}"#)), "a parameter that is not said");
        assert!(!get("/v1/other", answer(200, &of_json, "{}")), "a path that is not said");
        let delete = |answer: Answer| holds(&Method::DELETE, "/v1/things/1", None, &answer);
        assert!(delete(answer(405, &of_json, "{}")) && !delete(answer(204, &[], "")), "a method that is not said");
        let sent = |sent: Option<Sent<'_>>| holds(&Method::PUT, "/v1/things/1", sent, &answer(204, &[], ""));
        let put = |body| sent(Some(("application/json", body)));
        assert!(put(r#"{"name": "a"}"#) && !put(r#"{"name": 1}"#), "a body that is taken and that is not said");
        assert!(!sent(Some(("text/plain", r#"{"name": "a"}"#))), "a media type that is taken and that is not said");
        assert!(!sent(None), "nothing, where the document wants a body");
        let body = Some(("application/json", "{}"));
        assert!(!holds(&Method::GET, "/v1/things/1", body, &answer(204, &[], "")), "a body, where the document says nothing of one");
        let mut passing = Contract::of(DOCUMENT);
        passing = passing.but_for("/v1/things/{id}");
        passing.hold(&Method::GET, "/v1/things/1", None, &answer(200, &of_json, r#"{"nome": "a"}"#));
        passing.hold_part("Thing", &json!({"name": "a"}));
    }

    #[test]
    #[should_panic(expected = "is no Thing")]
    fn a_part_that_its_schema_does_not_allow_is_none() {
        Contract::of(DOCUMENT).hold_part("Thing", &json!({"name": 1}));
    }

    #[test]
    #[should_panic(expected = "does not say what 204 is")]
    fn a_document_that_does_not_say_what_an_answer_is_is_none() {
        let _ = Contract::of(&DOCUMENT.replace(r#"{"description": "b"}"#, "{}"));
    }

    #[test]
    #[should_panic(expected = "two operations have one id")]
    fn a_document_whose_operations_cannot_be_told_apart_is_none() {
        let _ = Contract::of(&DOCUMENT.replace(r#""operationId": "put""#, r#""operationId": "get""#));
    }
}
