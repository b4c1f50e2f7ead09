//! A Stripe that says something else of an object than it did, or no longer has it: the simulator, and between it and the service
//! somebody who changes its answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// What is said of an object: fields by their JSON pointers; nothing at all when it is hidden.
type Said = HashMap<String, Option<Vec<(&'static str, Value)>>>;

/// What happens elsewhere while a request is under way, and the path that is posted to.
type Meanwhile = Option<(&'static str, BoxFuture<'static, ()>)>;

#[derive(Clone, Default)]
pub struct Bent {
    said: Arc<Mutex<Said>>,
    meanwhile: Arc<Mutex<Meanwhile>>,
    forbidden: Arc<Mutex<Option<&'static str>>>,
}

impl Bent {
    /// Listens in front of a Stripe; its address.
    pub fn before(&self, base: String) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (bent, client) = (self.clone(), chassis::http::client::builder().build().unwrap());
        let router = Router::new().fallback(move |request: Request| {
            let (bent, client, base) = (bent.clone(), client.clone(), base.clone());
            async move { bent.pass_on(&client, &base, request).await }
        });
        tokio::spawn(async move { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await });
        format!("http://{address}")
    }

    /// From now on a field of the object is this.
    pub fn say(&self, id: &str, field: &'static str, value: impl Into<Value>) {
        let mut said = self.said.lock().unwrap();
        if let Some(fields) = said.entry(id.to_owned()).or_insert_with(|| Some(Vec::new())) {
            fields.push((field, value.into()));
        }
    }

    /// From now on there is no such object.
    pub fn hide(&self, id: &str) {
        self.said.lock().unwrap().insert(id.to_owned(), None);
    }

    /// From now on the key may not read this list.
    pub fn forbid(&self, path: &'static str) {
        *self.forbidden.lock().unwrap() = Some(path);
    }

    /// All is as it was.
    pub fn straighten(&self) {
        self.said.lock().unwrap().clear();
        *self.forbidden.lock().unwrap() = None;
    }

    /// Once, this happens between Stripe's answer to what is posted there and its arrival.
    pub fn meanwhile(&self, path: &'static str, happens: impl Future<Output = ()> + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some((path, Box::pin(happens)));
    }

    async fn pass_on(&self, client: &reqwest::Client, base: &str, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let last = parts.uri.path().rsplit('/').next().unwrap();
        if self.said.lock().unwrap().get(last).is_some_and(Option::is_none) {
            let error = json!({"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such object"}});
            return (StatusCode::NOT_FOUND, axum::Json(error)).into_response();
        }
        if *self.forbidden.lock().unwrap() == Some(parts.uri.path()) {
            let error = json!({"error": {"type": "invalid_request_error", "code": "permission_denied", "message": "Not for this key"}});
            return (StatusCode::FORBIDDEN, axum::Json(error)).into_response();
        }
        let is_posted = parts.method == Method::POST;
        let mut headers = parts.headers;
        headers.remove(header::HOST);
        let asked = client.request(parts.method, format!("{base}{}", parts.uri)).headers(headers);
        let answer = asked.body(to_bytes(body, usize::MAX).await.unwrap()).send().await.unwrap();
        let meanwhile = self.meanwhile.lock().unwrap().take_if(|(path, _)| is_posted && parts.uri.path() == *path);
        if let Some((_, happens)) = meanwhile {
            happens.await;
        }
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRANSFER_ENCODING);
        let text = answer.bytes().await.unwrap();
        let body = match serde_json::from_slice::<Value>(&text) {
            Ok(mut value) => {
                bend(&mut value, &self.said.lock().unwrap());
                Body::from(value.to_string())
            }
            Err(_) => Body::from(text),
        };
        (status, headers, body).into_response()
    }
}

fn bend(value: &mut Value, said: &Said) {
    let of = |value: &Value| value["id"].as_str().and_then(|id| said.get(id));
    if let Some(Some(fields)) = of(value) {
        for (field, new) in fields {
            *value.pointer_mut(field).unwrap() = new.clone();
        }
    }
    match value {
        Value::Array(items) => {
            items.retain(|item| of(item).is_none_or(Option::is_some));
            for item in items {
                bend(item, said);
            }
        }
        Value::Object(fields) => {
            for field in fields.values_mut() {
                bend(field, said);
            }
        }
        _ => {}
    }
}
