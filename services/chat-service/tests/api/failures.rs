//! Providers that fail when they have begun to answer: what is charged, and what is told.

use std::time::Duration;

use chassis::config::Millis;
use contracts::usage::{CountedBy, Outcome, UsageEvent};
use money::TokenUsage;
use serde_json::{Value, json};

use crate::harness::{Chat, PROMPT_TOKENS, read_until, streamed, whole};
use crate::refusals::assert_shape;
use crate::upstream::Feed;

/// First events that hold nothing: `OpenAI`'s, and Azure's before it.
const EMPTY: [&str; 2] = [
    r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"finish_reason":null}],"usage":null}"#,
    r#"{"id":"","choices":[],"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false}}}]}"#,
];
const OVERLOADED: &str = r#"{"error":{"message":"overloaded","type":"server_error"}}"#;

fn with_file() -> Value {
    let mut body = streamed();
    body["messages"] = json!([{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]);
    body
}

fn told(text: &str) -> Value {
    serde_json::from_str(text.trim_end().rsplit("data: ").next().expect("an event")).expect("JSON")
}

/// Asks, waits until a first event has come, and lets the provider fail.
async fn fail(chat: &Chat, body: &Value, first: &str, fail: impl FnOnce(Feed)) -> Value {
    let feed = chat.upstream.stream();
    feed.raw(&format!("data: {first}\n\n"));
    let mut response = chat.stream(body).await;
    let mut text = read_until(&mut response, "choices").await;
    fail(feed);
    text.push_str(&response.text().await.expect("the gateway's end is in order"));
    told(&text)
}

async fn all_settled(chat: &Chat, count: usize) -> Vec<UsageEvent> {
    let settled = || async { Some(chat.settlements().await).filter(|settlements| settlements.len() == count) };
    testkit::eventually("all settlements", settled).await.into_iter().map(|(event, _)| event).collect()
}

/// [trap 12] Whether a failure shows before the first event or behind an empty one is a matter of how bytes were cut.
#[tokio::test]
async fn a_stream_that_fails_before_any_content_costs_nothing_however_it_fails() {
    let chat = Chat::with(|config| config.provider.idle_timeout = Millis(Duration::from_millis(100))).await;
    for body in [streamed(), with_file()] {
        for first in EMPTY {
            let error = fail(&chat, &body, first, |feed| feed.raw(&format!("data: {OVERLOADED}\n\n"))).await;
            assert_eq!(error["error"]["message"], "overloaded");
            let cut = fail(&chat, &body, first, Feed::cut).await;
            assert_eq!(cut["error"]["code"], "upstream_failed");
            let ended = fail(&chat, &body, first, drop).await;
            assert_eq!(ended["error"]["code"], "upstream_failed");
            let mut silent = None;
            let silence = fail(&chat, &body, first, |feed| silent = Some(feed)).await;
            assert_eq!(silence["error"]["code"], "upstream_timeout");
        }
    }
    for event in all_settled(&chat, 2 * 2 * 4).await {
        assert_eq!((event.usage, event.outcome), (TokenUsage::default(), Outcome::UpstreamCut));
    }
    assert_eq!(chat.remaining().await, crate::neighbors::PORTION, "all of it is back");
}

/// [trap 13]
#[tokio::test]
async fn a_stream_without_content_at_its_deadline_costs_nothing() {
    let chat = Chat::with(|config| config.provider.deadline = Millis(Duration::from_millis(300))).await;
    let mut silent = None;
    fail(&chat, &with_file(), EMPTY[0], |feed| silent = Some(feed)).await;
    let event = chat.settled().await;
    assert_eq!((event.usage, event.outcome), (TokenUsage::default(), Outcome::Deadline));
}

/// [trap 6]
#[tokio::test]
async fn what_was_generated_or_reported_before_the_failure_is_charged() {
    let chat = Chat::start().await;
    let said = |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
    for delta in [r#"{"content":"hello"}"#, r#"{"refusal":"hello"}"#, r#"{"tool_calls":[{"index":0,"function":{"name":"hello"}}]}"#] {
        fail(&chat, &streamed(), &said(delta), Feed::cut).await;
    }
    for event in all_settled(&chat, 3).await {
        assert_eq!((event.usage, event.outcome), (TokenUsage::text(PROMPT_TOKENS, 1), Outcome::UpstreamCut));
    }
    fail(&chat, &streamed(), EMPTY[0], |feed| feed.usage(9, 0)).await;
    let event = all_settled(&chat, 4).await.into_iter().find(|event| event.counted_by == CountedBy::Reported).expect("the reported one");
    assert_eq!((event.usage, event.outcome), (TokenUsage::text(9, 0), Outcome::UpstreamCut));
}

/// [trap 4] A client that leaves ends its answer itself: the provider has read the prompt for it.
#[tokio::test]
async fn a_client_that_leaves_before_any_content_pays_for_its_prompt_also_when_the_provider_fails_afterwards() {
    let prompt = TokenUsage::text(PROMPT_TOKENS, 0);
    let chat = Chat::with(|config| config.drain.max_streams = 0).await;
    let feed = chat.upstream.stream();
    feed.raw(&format!("data: {}\n\n", EMPTY[0]));
    chat.leave(&streamed(), "assistant").await;
    feed.hung_up().await;
    let event = chat.settled().await;
    assert_eq!((event.usage, event.outcome), (prompt, Outcome::ClientClosed));

    let chat = Chat::start().await;
    let error = |feed: Feed| feed.raw(&format!("data: {OVERLOADED}\n\n"));
    for fail in [Feed::cut as fn(Feed), error] {
        let feed = chat.upstream.stream();
        feed.raw(&format!("data: {}\n\n", EMPTY[0]));
        chat.leave(&streamed(), "assistant").await;
        fail(feed);
    }
    for event in all_settled(&chat, 2).await {
        assert_eq!((event.usage, event.outcome), (prompt, Outcome::ClientClosed));
    }
}

const OPENROUTER: &str = r#"{"error":{"message":"Provider returned error","code":400,
    "metadata":{"raw":"{\"secret\":1}","provider_name":"x"}},"user_id":"org_ours"}"#;

/// [trap 18] A provider's error holds more than is meant for our clients.
#[tokio::test]
async fn of_a_providers_error_only_what_openais_has_reaches_a_client_wherever_it_comes() {
    let chat = Chat::start().await;
    let event = OPENROUTER.replace('\n', "");
    for body in [whole(), streamed()] {
        chat.upstream.whole(400, OPENROUTER);
        let answer = chat.ask(&body).await;
        assert_shape(&answer, 400, "invalid_request_error", "provider_refused", &Value::Null);
        assert_eq!(answer.json["error"]["message"], "Provider returned error");
    }
    chat.upstream.whole(200, OPENROUTER);
    assert_shape(&chat.ask(&whole()).await, 502, "server_error", "upstream_failed", &Value::Null);
    chat.upstream.stream().raw(&format!("data: {event}\n\n"));
    assert_shape(&chat.ask(&streamed()).await, 502, "server_error", "upstream_failed", &Value::Null);
    let late = fail(&chat, &streamed(), EMPTY[0], |feed| feed.raw(&format!("data: {event}\n\n"))).await;
    let expected = json!({"message": "Provider returned error", "type": "server_error", "param": null, "code": "upstream_failed"});
    assert_eq!(late, json!({"error": expected}));
}

/// [trap 9] The client can neither pay our bill nor mend our configuration.
#[tokio::test]
async fn what_is_our_own_fault_is_a_503_with_whatever_status_it_comes() {
    let chat = Chat::start().await;
    let named = |name: &str| json!({"error": {"message": "m", "type": "invalid_request_error", "code": name}}).to_string();
    let anthropic = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to go on."}}"#;
    let cases = [
        (400, named("billing_hard_limit_reached")),
        (400, named("budget_exceeded")),
        (400, anthropic.to_owned()),
        (429, named("insufficient_quota")),
        (429, named("billing_not_active")),
        (404, named("model_not_found")),
        (200, named("insufficient_quota")),
    ];
    for (status, body) in cases {
        chat.upstream.whole(status, &body);
        assert_shape(&chat.ask(&whole()).await, 503, "server_error", "service_unavailable", &Value::Null);
    }
    let event = named("insufficient_quota");
    chat.upstream.stream().raw(&format!("data: {event}\n\n"));
    assert_shape(&chat.ask(&streamed()).await, 503, "server_error", "service_unavailable", &Value::Null);
    let late = fail(&chat, &streamed(), EMPTY[0], |feed| feed.raw(&format!("data: {event}\n\n"))).await;
    assert_eq!(late["error"]["code"], "service_unavailable");
}
