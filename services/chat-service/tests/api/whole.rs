//! Answers in one piece.

use std::time::Duration;

use chassis::config::Millis;
use chat_service::config::LimitField;
use contracts::usage::{CountedBy, Outcome};
use money::{Rates, TokenUsage};
use serde_json::json;

use crate::harness::{Chat, PROMPT_TOKENS, read, streamed, whole};
use crate::neighbors::RATES;

#[tokio::test]
async fn an_answer_passes_byte_for_byte_and_is_settled_by_its_usage() {
    let chat = Chat::start().await;
    let body = r#"{ "id":"c","unknown":1.50,"choices":[{"index":0,"message":{"role":"assistant","content":"hé"}}],
        "usage":{"prompt_tokens":12,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2},
        "cache_creation_input_tokens":3,"cache_creation":{"ephemeral_1h_input_tokens":2}}}"#;
    chat.upstream.whole(200, body);
    let mut asked = whole();
    asked["vendor_option"] = json!({"b": 1, "a": [true]});
    asked["n"] = 2.into();
    asked["max_tokens"] = 7.into();
    let answer = chat.ask(&asked).await.expect(200);
    assert_eq!(answer.text, body);
    assert_eq!(chat.upstream.request(0).await.text, asked.to_string(), "every field reaches the provider as it came");
    let (verified, request_id) = (chat.verified.clone(), answer.header("x-request-id").to_owned());
    let event = chat.settled().await;
    assert_eq!((event.organization_id, event.request_id.to_string()), (verified.organization_id, request_id));
    // Two answers of at most seven tokens at two micro-units, and the prompt at one.
    assert!((28 + PROMPT_TOKENS..28 + 200).contains(&u64::try_from(event.reserved_micros).expect("an amount")), "{event:?}");
    // As the provider says it, also where the model has no rate for what stays in a cache for an hour.
    let usage = TokenUsage {
        input_tokens: 5,
        cached_input_tokens: 4,
        cache_write_tokens: 1,
        cache_write_1h_tokens: 2,
        output_tokens: 3,
        reasoning_tokens: 2,
        ..TokenUsage::default()
    };
    assert_eq!((event.usage, event.counted_by, event.outcome), (usage, CountedBy::Reported, Outcome::Completed));
    assert_eq!(
        (event.api_key_id, event.user_id, event.model.as_str(), event.provider.as_str()),
        (Some(verified.api_key_id), None, "sim-small", "openai")
    );
}

/// [trap 18] What the operator pays is between it and its provider.
#[tokio::test]
async fn what_an_answer_cost_us_reaches_no_client_in_whole_or_in_pieces() {
    let chat = Chat::start().await;
    let answer = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"cost":0.5,"cost_details":{},"is_byok":false}}"#;
    let shown = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
    chat.upstream.whole(200, answer);
    assert_eq!(chat.ask(&whole()).await.expect(200).text, shown);
    let feed = chat.upstream.stream();
    feed.raw(&format!("data: {answer}\n\n"));
    feed.done();
    let mut asked = streamed();
    asked["stream_options"] = json!({"include_usage": true});
    assert_eq!(chat.ask(&asked).await.expect(200).text, format!("data: {shown}\n\ndata: [DONE]\n\n"));
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

/// [trap 6]
#[tokio::test]
async fn with_tools_and_without_usage_the_prompt_is_an_estimate_that_includes_them() {
    let chat = Chat::start().await;
    chat.upstream.whole(200, r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hello world"}}]}"#);
    let mut asked = whole();
    asked["tools"] = json!([{"type": "function", "function": {"name": "f", "description": "hello world ".repeat(50)}}]);
    chat.ask(&asked).await.expect(200);
    let event = chat.settled().await;
    assert_eq!((event.usage.output_tokens, event.counted_by), (2, CountedBy::Estimated));
    assert!((PROMPT_TOKENS + 100..PROMPT_TOKENS + 150).contains(&event.usage.input_tokens), "{:?}", event.usage);
}

/// [trap 3] [trap 6]
#[tokio::test]
async fn without_usage_a_prompt_that_cannot_be_counted_costs_what_was_reserved_for_it() {
    let chat = Chat::start().await;
    chat.upstream.whole(200, r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"hello world"}}]}"#);
    let mut asked = whole();
    asked["messages"] = json!([{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]);
    chat.ask(&asked).await.expect(200);
    let event = chat.settled().await;
    assert_eq!(event.reserved_micros, 16384 + 2 * 4096, "the context window, and no audio");
    assert_eq!((event.usage, event.counted_by), (TokenUsage::text(16384, 2), CountedBy::Estimated));
}

/// [trap 3]
#[tokio::test]
async fn a_request_that_may_use_audio_is_reserved_as_one() {
    let chat = Chat::start().await;
    chat.upstream.whole(200, r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    let mut asked = whole();
    asked["modalities"] = json!(["text", "audio"]);
    chat.ask(&asked).await.expect(200);
    let reserved = chat.settled().await.reserved_micros;
    assert!(reserved >= 4096 * 20 + 10 * 9, "{reserved}");
}

/// [B-32] The provider's report has no images, and what they cost by the piece is held and charged all the same.
#[tokio::test]
async fn images_with_a_rate_by_the_piece_are_reserved_and_charged_for_each_of_them() {
    let mut reserved = Vec::new();
    for (image, pieces) in [(Some(5_000_000_000), 2), (None, 0)] {
        let chat = Chat::before(|neighbors| neighbors.sells_at(Rates { image, ..RATES }), |_| {}).await;
        chat.upstream.whole(200, r#"{"choices":[],"usage":{"prompt_tokens":90,"completion_tokens":1}}"#);
        let mut asked = whole();
        let picture = json!({"type": "image_url", "image_url": {"url": "https://x/y.png"}});
        asked["messages"] = json!([{"role": "user", "content": [picture, {"type": "text", "text": "both?"}, picture]}]);
        chat.ask(&asked).await.expect(200);
        let event = chat.settled().await;
        assert_eq!((event.usage.images, event.usage.input_tokens), (pieces, 90));
        reserved.push(event.reserved_micros);
    }
    assert_eq!(reserved[0] - reserved[1], 2 * 5_000);
}

/// [trap 3] What is not known may be sound, and sound that was not reserved for could never be posted.
#[tokio::test]
async fn a_request_with_a_film_is_reserved_as_one_with_sound() {
    let chat = Chat::start().await;
    chat.upstream
        .whole(200, r#"{"choices":[],"usage":{"prompt_tokens":90,"completion_tokens":1,"prompt_tokens_details":{"audio_tokens":30}}}"#);
    let mut asked = whole();
    asked["messages"] = json!([{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://x/y.mp4"}}]}]);
    chat.ask(&asked).await.expect(200);
    let event = chat.settled().await;
    assert_eq!((event.reserved_micros, event.usage.audio_input_tokens), (16384 * 10 + 4096 * 2, 30));
}

/// [trap 3]
#[tokio::test]
async fn the_limit_that_was_reserved_is_the_one_that_the_provider_is_told_by_the_name_it_heeds() {
    let chat = Chat::with(|config| config.provider.limit_field = Some(LimitField(llm::LimitField::MaxCompletionTokens))).await;
    let mut asked = whole();
    let mut reserved = Vec::new();
    for (wish, told) in [(json!(null), 4096), (json!(99_999), 4096), (json!(7), 7)] {
        chat.upstream.whole(200, r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
        asked["max_tokens"] = wish;
        chat.ask(&asked).await.expect(200);
        let sent = chat.upstream.seen().last().expect("a request").json();
        assert_eq!((&sent["max_completion_tokens"], sent.get("max_tokens")), (&json!(told), None));
        reserved.push(told * 2);
    }
    let redis = chat.stop().await;
    let settled: Vec<i64> = read(&redis).await.expect("Redis").iter().map(|(event, _)| event.reserved_micros).collect();
    let prompts: Vec<i64> = settled.iter().zip(&reserved).map(|(settled, answer)| settled - answer).collect();
    assert!(prompts.iter().all(|prompt| (9..200).contains(prompt)), "{prompts:?}");
}

/// [trap 6] Some providers answer with both; it used to be read as no answer at all.
#[tokio::test]
async fn an_answer_with_delta_and_message_is_an_answer() {
    let chat = Chat::start().await;
    let body = r#"{"choices":[{"delta":{},"message":{"content":"hello"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
    chat.upstream.whole(200, body);
    assert_eq!(chat.ask(&whole()).await.expect(200).text, body);
    assert_eq!(chat.settled().await.usage, TokenUsage::text(9, 1));
}

/// [trap 4] Nothing came, so only the prompt is charged, as an estimate.
#[tokio::test]
async fn without_a_place_for_draining_an_answer_whose_client_left_is_given_up_at_once() {
    for body in [whole(), streamed()] {
        let chat = Chat::with(|config| config.drain.max_streams = 0).await;
        let feed = chat.upstream.stream();
        let asked = async {
            chat.upstream.request(0).await;
        };
        chat.leave_when(&body, asked).await;
        feed.hung_up().await;
        let event = chat.settled().await;
        let prompt = TokenUsage::text(PROMPT_TOKENS, 0);
        assert_eq!((event.usage, event.counted_by, event.outcome), (prompt, CountedBy::Estimated, Outcome::ClientClosed));
    }
}

/// [trap 4]
#[tokio::test]
async fn waiting_for_an_answer_whose_client_left_ends_when_its_time_is_over() {
    for body in [whole(), streamed()] {
        let chat = Chat::with(|config| config.drain.time = Millis(Duration::from_millis(1))).await;
        let feed = chat.upstream.stream();
        let asked = async {
            chat.upstream.request(0).await;
        };
        chat.leave_when(&body, asked).await;
        feed.hung_up().await;
        assert_eq!(chat.settled().await.outcome, Outcome::ClientClosed);
    }
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
