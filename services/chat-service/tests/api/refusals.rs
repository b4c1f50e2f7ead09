//! Refusals, in `OpenAI`'s shape and with its codes.

use std::time::Duration;

use contracts::usage::Outcome;
use identity::{Scope, VerifiedApiKey};
use money::{Rates, TokenUsage};
use serde_json::{Value, json};
use testkit::http::Answer;

use crate::harness::{Chat, read, streamed, whole};
use crate::neighbors::RATES;

#[track_caller]
pub fn assert_shape(answer: &Answer, status: u16, kind: &str, code: &str, param: &Value) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    let error = answer.json["error"].as_object().unwrap_or_else(|| panic!("an error object: {}", answer.text));
    assert_eq!(error.keys().map(String::as_str).collect::<Vec<_>>(), ["message", "type", "param", "code"]);
    assert_eq!((&error["type"], &error["code"], &error["param"]), (&json!(kind), &json!(code), param));
}

/// [trap 10] [trap 23] Enumerates the routes: none answers without a credential, and all that call a model are metered.
#[tokio::test]
async fn every_route_wants_a_credential_and_every_ingress_is_metered() {
    let chat = Chat::start().await;
    let document: Value = serde_json::from_str(&chat_service::router::openapi()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let mut metered = Vec::new();
    for (path, operations) in paths {
        for method in operations.as_object().expect("operations").keys() {
            let method: reqwest::Method = method.to_uppercase().parse().expect("a method");
            let path = path.replace("{id}", "sim-small");
            for (client, name) in [(chat.stranger(), "without"), (chat.stranger().bearer("sk-wrong"), "with a wrong")] {
                let answer = client.send(method.clone(), &path, Some("{}".into())).await;
                assert_shape(&answer, 401, "invalid_request_error", "invalid_api_key", &Value::Null);
                assert_eq!(answer.header("www-authenticate"), "Bearer", "{name} credential");
            }
            if method == reqwest::Method::POST {
                chat.upstream.whole(200, r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
                chat.client().post(&path, &whole()).await.expect(200);
                metered.push(path);
            }
        }
    }
    assert_eq!(metered, ["/v1/chat/completions"]);
    assert_eq!(chat.admitted().await, metered.len());
    testkit::eventually("a settlement for each", || async { (chat.settlements().await.len() == metered.len()).then_some(()) }).await;
}

#[tokio::test]
async fn a_bad_request_names_its_parameter_and_costs_nothing() {
    let chat = Chat::start().await;
    for (body, param) in [
        (json!({"model": "sim-small"}), "messages"),
        (json!({"model": "sim-small", "messages": [{"role": "user"}], "n": "two"}), "n"),
        (json!({"messages": []}), "model"),
        (json!({"model": "sim-small", "messages": [{"role": "user"}], "Max_Tokens": 1}), "Max_Tokens"),
        (json!({"model": "sim-small", "messages": [{"role": "user"}], "service_tier": "priority"}), "service_tier"),
        (json!({"model": "sim-small", "messages": [{"role": "user"}], "web_search_options": {}}), "web_search_options"),
        (json!({"model": "sim-small", "messages": [{"role": "user"}], "models": ["sim-large"]}), "models"),
        (json!({"model": "sim-small", "messages": [{"role": "user"}], "tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"model": "sim-small", "messages": [{"role": "user"}], "modalities": ["image"]}), "modalities"),
    ] {
        let answer = chat.ask(&body).await;
        assert_shape(&answer, 400, "invalid_request_error", "invalid_value", &json!(param));
        assert!(answer.header("x-request-id").starts_with("req_"));
    }
    assert!(chat.upstream.seen().is_empty() && chat.admitted().await == 0);
}

/// [trap 8] [trap 18] An unknown model is refused here, so no name that a client makes up reaches a URL.
#[tokio::test]
async fn a_model_that_is_unknown_or_has_no_price_is_a_404() {
    let chat = Chat::before(|neighbors| neighbors.does_not_sell("sim-large"), |_| {}).await;
    for model in ["gpt-99", "../../admin", "sim-small/../x", "SIM-SMALL"] {
        let mut body = whole();
        body["model"] = model.into();
        assert_shape(&chat.ask(&body).await, 404, "invalid_request_error", "model_not_found", &json!("model"));
    }
    let mut body = whole();
    body["model"] = "sim-large".into();
    assert_shape(&chat.ask(&body).await, 404, "invalid_request_error", "model_not_found", &json!("model"));
    assert!(chat.upstream.seen().is_empty() && chat.neighbors.asked().is_empty());
}

/// [B-32] Usage without a rate is refused where it is posted, and what was used would be paid by nobody.
#[tokio::test]
async fn audio_is_refused_before_the_call_where_its_direction_has_no_rate_and_let_through_where_it_has_one() {
    let (text, both) = (json!(["text"]), json!(["text", "audio"]));
    let (silent, sound) = (json!("hello"), json!([{"type": "input_audio", "input_audio": {"data": "aaaa", "format": "wav"}}]));
    let film = json!([{"type": "video_url", "video_url": {"url": "https://x/y.mp4"}}]);
    let (hears, speaks) = (Rates { audio_output: None, ..RATES }, Rates { audio_input: None, ..RATES });
    for (rates, content, modalities, status) in [
        (hears, &sound, &text, 200),
        (hears, &silent, &both, 404),
        (hears, &sound, &both, 404),
        (speaks, &silent, &both, 200),
        (speaks, &sound, &text, 404),
        (RATES, &sound, &both, 200),
        (speaks, &film, &text, 404),
        (hears, &film, &text, 200),
    ] {
        let chat = Chat::before(|neighbors| neighbors.sells_at(rates), |_| {}).await;
        chat.upstream.whole(200, r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
        let mut body = whole();
        body["messages"] = json!([{"role": "user", "content": content}]);
        body["modalities"] = modalities.clone();
        let answer = chat.ask(&body).await;
        if status == 200 {
            answer.expect(200);
        } else {
            assert_shape(&answer, 404, "invalid_request_error", "model_not_found", &json!("model"));
            assert!(chat.upstream.seen().is_empty() && chat.admitted().await == 0, "{body}");
        }
    }
}

/// [trap 3]
#[tokio::test]
async fn a_wallet_that_does_not_reach_is_a_402_before_the_provider_is_asked() {
    let chat = Chat::start().await;
    chat.neighbors.has(100);
    for body in [whole(), streamed()] {
        assert_shape(&chat.ask(&body).await, 402, "insufficient_quota", "insufficient_quota", &Value::Null);
    }
    assert!(chat.upstream.seen().is_empty());
    let redis = chat.stop().await;
    assert!(read(&redis).await.expect("Redis").is_empty(), "nothing was taken, so nothing is settled");
}

/// [trap 9]
#[tokio::test]
async fn with_auth_billing_or_redis_away_the_answer_is_a_503_with_retry_after_and_nothing_is_free() {
    let mut chat = Chat::start().await;
    chat.neighbors.auth_answers(503);
    let assert_away = |answer: &Answer| {
        assert_shape(answer, 503, "server_error", "service_unavailable", &Value::Null);
        assert_eq!(answer.header("retry-after"), "1");
    };
    assert_away(&chat.ask(&whole()).await);
    chat.neighbors.auth_answers(0);
    // After a failure auth-service is left alone for a moment.
    chat.time.advance(Duration::from_secs(2));
    chat.neighbors.billing_answers(500);
    assert_away(&chat.ask(&whole()).await);
    chat.neighbors.billing_answers(0);
    chat.redis.kill();
    assert_away(&chat.ask(&whole()).await);
    assert!(chat.upstream.seen().is_empty());
    chat.redis.restart().await.expect("Redis");
    chat.upstream.whole(200, r#"{"choices":[]}"#);
    let answer = testkit::eventually("an answer after the outages", || async {
        Some(chat.ask(&whole()).await).filter(|answer| answer.status == 200)
    });
    answer.await;
}

#[tokio::test]
async fn a_key_without_the_scope_is_a_403() {
    let mut chat = Chat::start().await;
    let scopes = [Scope::BillingRead].into_iter().collect();
    chat.key = chat.new_key(VerifiedApiKey { scopes, ..chat.verified.clone() });
    assert_shape(&chat.ask(&whole()).await, 403, "invalid_request_error", "missing_scope", &Value::Null);
    assert_shape(&chat.client().get("/v1/models").await, 403, "invalid_request_error", "missing_scope", &Value::Null);
}

/// Who may not call a model takes none of the memory for bodies, however long its body takes to come.
#[tokio::test]
async fn a_key_without_the_scope_is_refused_before_any_of_its_body_is_read() {
    let mut chat = Chat::start().await;
    let scopes = [Scope::ModelsRead].into_iter().collect();
    chat.key = chat.new_key(VerifiedApiKey { scopes, ..chat.verified.clone() });
    let answer = chat.announce(32 << 20, "missing_scope").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

/// [trap 15] Each is asked once: what a provider refused is not sent again.
#[tokio::test]
async fn what_the_provider_refuses_is_told_in_the_right_words_and_costs_nothing() {
    let chat = Chat::start().await;
    let words = r#"{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
    let cases = [
        (400, 400, "context_length_exceeded"),
        (404, 503, "service_unavailable"),
        (413, 413, "context_length_exceeded"),
        (422, 422, "context_length_exceeded"),
        (429, 429, "rate_limit_exceeded"),
        (401, 503, "service_unavailable"),
        (402, 503, "service_unavailable"),
        (403, 503, "service_unavailable"),
        (500, 502, "upstream_failed"),
        (503, 503, "service_unavailable"),
    ];
    // What is our own fault does not end when the provider says.
    let waits = |theirs, ours| match (theirs, ours) {
        (429 | 503, _) => "7",
        (_, 503) => "1",
        _ => "",
    };
    for (index, (theirs, ours, code)) in cases.into_iter().enumerate() {
        chat.upstream.whole_with(theirs, words, vec![("retry-after", "7".into())]);
        let answer = chat.ask(&if index % 2 == 0 { whole() } else { streamed() }).await.expect(ours);
        assert_eq!(answer.json["error"]["code"], code, "{theirs}");
        assert_eq!(answer.header("retry-after"), waits(theirs, ours), "{theirs}");
        assert!(ours == theirs || !answer.text.contains("too long"), "{theirs}");
    }
    assert_eq!(chat.upstream.seen().len(), cases.len());
    chat.upstream.whole(400, "<html>");
    assert_shape(&chat.ask(&whole()).await, 400, "invalid_request_error", "provider_refused", &Value::Null);
    let all = cases.len() + 1;
    testkit::eventually("a settlement for each", || async { (chat.settlements().await.len() == all).then_some(()) }).await;
    for (event, _) in chat.settlements().await {
        assert_eq!((event.usage, event.outcome), (TokenUsage::default(), Outcome::Failed));
    }
}

/// [trap 15]
#[tokio::test]
async fn a_provider_may_say_when_to_come_back_by_a_date_and_no_later_than_in_an_hour() {
    let chat = Chat::start().await;
    // The test's clock stands at the first instant of 2030.
    for (said, told) in [
        ("Tue, 01 Jan 2030 00:00:07 GMT", "7"),
        ("Tue, 01 Jan 2030 05:00:00 GMT", "3600"),
        ("Mon, 31 Dec 2029 00:00:00 GMT", "0"),
        ("soon", "1"),
        ("99999", "3600"),
    ] {
        for status in [429, 503] {
            chat.upstream.whole_with(status, "{}", vec![("retry-after", said.into())]);
            assert_eq!(chat.ask(&whole()).await.expect(status).header("retry-after"), told, "{said}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_a_503_and_costs_nothing() {
    let chat = Chat::with(|config| config.provider.base_url = "http://127.0.0.1:1/v1".into()).await;
    assert_shape(&chat.ask(&whole()).await, 503, "server_error", "service_unavailable", &Value::Null);
    let event = chat.settled().await;
    assert_eq!((event.usage, event.outcome), (TokenUsage::default(), Outcome::Failed));
}

/// [trap 18]
#[tokio::test]
async fn of_the_clients_headers_only_those_of_the_configuration_reach_the_provider() {
    let chat = Chat::start().await;
    chat.upstream.whole(200, r#"{"choices":[]}"#);
    let client = chat.client().header("x-allowed", "yes").header("x-other", "no").header("x-request-id", "mine").header("cookie", "no");
    client.post("/v1/chat/completions", &whole()).await.expect(200);
    let seen = chat.upstream.request(0).await;
    assert_eq!((seen.path.as_str(), seen.header("x-allowed")), ("/v1/chat/completions", "yes"));
    assert!(!seen.headers.contains_key("x-other") && !seen.headers.contains_key("cookie"));
    assert_eq!(seen.header("authorization"), "Bearer sk-our-own");
    assert!(seen.header("x-request-id").starts_with("req_"));
}
