//! Answers in one piece.

use std::time::Duration;

use chassis::config::Millis;
use chrono::TimeDelta;
use contracts::usage::{CountedBy, Outcome};
use money::TokenUsage;
use serde_json::json;

use crate::harness::{Chat, PROMPT_TOKENS, whole};

#[tokio::test]
async fn an_answer_passes_byte_for_byte_and_is_settled_by_its_usage() {
    let chat = Chat::start().await;
    let body = r#"{ "id":"c","unknown":1.50,"choices":[{"index":0,"message":{"role":"assistant","content":"hé"}}],
        "usage":{"prompt_tokens":12,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}"#;
    chat.upstream.whole(200, body);
    let mut asked = whole();
    asked["vendor_option"] = json!({"b": 1, "a": [true]});
    asked["n"] = 2.into();
    asked["max_tokens"] = 7.into();
    let answer = chat.ask(&asked).await.expect(200);
    assert_eq!(answer.text, body);
    assert_eq!(chat.upstream.request(0).await.text, asked.to_string(), "every field reaches the provider as it came");
    let (reserved, id) = chat.neighbors.reservations()[0].clone();
    let verified = chat.verified.clone();
    assert_eq!((reserved.organization_id, reserved.api_key_id), (verified.organization_id, Some(verified.api_key_id)));
    assert_eq!((reserved.model.as_str(), reserved.max_output_tokens), ("sim-small", 14));
    assert!(reserved.max_input_tokens >= PROMPT_TOKENS);
    let (clock, _) = testkit::clock();
    assert_eq!(reserved.expires_at, clock.now() + TimeDelta::seconds(300 + 60));
    assert_eq!(answer.header("x-request-id"), reserved.request_id.to_string());
    let event = chat.settled().await;
    let usage = TokenUsage { input_tokens: 8, cached_input_tokens: 4, output_tokens: 3, reasoning_tokens: 2, ..TokenUsage::default() };
    assert_eq!((event.usage, event.counted_by, event.outcome), (usage, CountedBy::Reported, Outcome::Completed));
    assert_eq!((event.reservation_id, event.request_id, event.organization_id), (id, reserved.request_id, verified.organization_id));
    assert_eq!(
        (event.api_key_id, event.user_id, event.model.as_str(), event.provider.as_str()),
        (Some(verified.api_key_id), None, "sim-small", "openai")
    );
}

/// [trap 6]
#[tokio::test]
async fn an_answer_without_usage_is_counted() {
    let chat = Chat::start().await;
    chat.upstream.whole(200, r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hello world"}}]}"#);
    chat.ask(&whole()).await.expect(200);
    let event = chat.settled().await;
    assert_eq!((event.usage, event.counted_by), (TokenUsage::text(PROMPT_TOKENS, 2), CountedBy::Counted));
}

/// [trap 2] A provider that was asked finishes its answer, and charges for it, whether the client waits or not.
#[tokio::test]
async fn an_answer_whose_client_left_is_settled_by_its_usage() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    let asked = async {
        chat.upstream.request(0).await;
    };
    chat.leave_when(&whole(), asked).await;
    feed.raw(r#"{"choices":[{"index":0,"message":{"content":"hello"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#);
    drop(feed);
    let event = chat.settled().await;
    assert_eq!((event.usage, event.counted_by, event.outcome), (TokenUsage::text(9, 1), CountedBy::Reported, Outcome::ClientClosed));
}

/// [trap 13]
#[tokio::test]
async fn an_answer_that_does_not_come_by_the_deadline_is_a_504_and_costs_nothing() {
    let chat = Chat::with(|config| config.provider.deadline = Millis(Duration::from_millis(50))).await;
    chat.upstream.hang();
    let answer = chat.ask(&whole()).await.expect(504);
    assert_eq!(answer.json["error"]["code"], "upstream_timeout");
    let event = chat.settled().await;
    assert_eq!((event.usage, event.outcome), (TokenUsage::default(), Outcome::Deadline));
}

#[tokio::test]
async fn an_answer_that_is_none_or_too_large_is_a_502_and_costs_nothing() {
    let chat = Chat::with(|config| config.provider.max_response_bytes = 1000).await;
    for body in ["<html>", r#"{"error":{"message":"m"}}"#, &format!("{{\"x\":\"{}\"}}", "x".repeat(2000))] {
        chat.upstream.whole(200, body);
        assert_eq!(chat.ask(&whole()).await.expect(502).json["error"]["code"], "upstream_failed");
    }
    testkit::eventually("three settlements", || async { (chat.settlements().await.len() == 3).then_some(()) }).await;
    for (event, _) in chat.settlements().await {
        assert_eq!((event.usage, event.outcome), (TokenUsage::default(), Outcome::Failed));
    }
}
