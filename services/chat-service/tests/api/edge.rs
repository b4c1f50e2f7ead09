//! What is refused before or behind the handlers: in `OpenAI`'s shape too.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::http::TestClient;

use crate::harness::{Chat, streamed, whole};
use crate::refusals::assert_shape;

const INVALID: &str = "invalid_request_error";

#[tokio::test]
async fn a_prompt_may_be_larger_than_the_edge_of_other_services_lets_through() {
    let chat = Chat::start().await;
    chat.upstream.whole(200, r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    let mut body = whole();
    body["messages"][0]["content"] = "x".repeat(2 << 20).into();
    chat.ask(&body).await.expect(200);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_a_413_whether_its_length_is_announced_or_not() {
    let chat = Chat::with(|config| config.limits.body_limit = 1000).await;
    let mut body = whole();
    body["messages"][0]["content"] = "x".repeat(2000).into();
    assert_shape(&chat.ask(&body).await, 413, INVALID, "payload_too_large", &Value::Null);
    let chunk = Ok::<_, Infallible>(Bytes::from(body.to_string()));
    let client = chassis::http::client::builder().build().expect("a client");
    let request = client.post(format!("http://{}/v1/chat/completions", chat.address)).bearer_auth(&chat.key);
    let answer = request.body(reqwest::Body::wrap_stream(stream::iter([chunk]))).send().await.expect("an answer");
    assert_eq!(answer.status(), 413);
    let answer: Value = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
    assert_eq!((&answer["error"]["type"], &answer["error"]["code"]), (&json!(INVALID), &json!("payload_too_large")));
    assert!(chat.upstream.seen().is_empty() && chat.admitted().await == 0);
}

/// [trap 14]
#[tokio::test]
async fn one_request_too_many_is_a_503_with_retry_after() {
    let chat = Chat::with(|config| config.http.max_concurrency = 1).await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    let first = chat.stream(&streamed()).await;
    let refused = chat.ask(&whole()).await;
    assert_shape(&refused, 503, "server_error", "service_unavailable", &Value::Null);
    assert_eq!(refused.header("retry-after"), "1");
    feed.done();
    assert!(first.text().await.expect("a whole stream").ends_with("[DONE]\n\n"));
}

#[tokio::test]
async fn a_path_or_a_method_that_there_is_not_is_refused_in_the_same_shape() {
    let chat = Chat::start().await;
    let client = chat.client();
    assert_shape(&client.get("/v1/nothing").await, 404, INVALID, "not_found", &Value::Null);
    assert_shape(&client.get("/v1/chat/completions").await, 405, INVALID, "method_not_allowed", &Value::Null);
    assert_shape(&client.get("/v1/models/%ff").await, 404, INVALID, "model_not_found", &json!("model"));
}

/// [trap 19]
#[tokio::test]
async fn nothing_that_a_client_invents_becomes_a_part_of_the_metrics() {
    let chat = Chat::start().await;
    let mut body = whole();
    body["model"] = "invented-model".into();
    body["user"] = "invented-user".into();
    chat.ask(&body).await.expect(404);
    body["model"] = "sim-small".into();
    chat.upstream.whole(200, r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    chat.ask(&body).await.expect(200);
    let anonymous = chat.stranger().bearer("sk-invented-key");
    anonymous.post("/v1/chat/completions", &body).await.expect(401);
    chat.client().get("/v1/models/invented-name").await.expect(404);
    chat.client().send(Method::from_bytes(b"INVENTED").expect("a method"), "/v1/invented-path", None).await.expect(404);
    let metrics = TestClient::new(chat.private).get("/metrics").await.expect(200).text;
    assert!(metrics.contains("chat_completions_total") && metrics.contains("http_server_request_duration_seconds"), "{metrics}");
    let ids = [chat.verified.api_key_id.to_string(), chat.verified.organization_id.to_string(), chat.key.clone()];
    for secret in ids.iter().map(String::as_str).chain(["nvented", "NVENTED", "sim-small"]) {
        assert!(!metrics.contains(secret), "{secret} is in the metrics:\n{metrics}");
    }
}
