//! What is committed about this service and made from its code: equal to what the code makes today.

use chassis::config::reference;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::contract::Contract;
use testkit::repository;

use crate::harness::Chat;

const MEND: &str = "write it anew: tools/docs/generate.sh";

/// [I-82]
#[tokio::test]
async fn the_committed_openapi_file_is_the_one_the_code_makes_and_the_one_that_is_served() {
    let committed = repository::read("docs/api/chat-service.json");
    assert!(committed == chat_service::router::openapi(), "{MEND}");
    let chat = Chat::start().await;
    assert_eq!(chat.client().get("/openapi.json").await.expect(200).text, committed);
}

/// [I-82]
#[tokio::test]
async fn a_provider_s_completion_is_one_of_the_document_s() {
    let chat = Chat::start().await;
    let message = json!({"role": "assistant", "content": "hello", "refusal": null, "annotations": []});
    let choices = [json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"})];
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 0}});
    let of_openai =
        json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage});
    chat.upstream.whole(200, &of_openai.to_string());
    let parts = json!([{"type": "text", "text": "more"}]);
    let body = json!({"model": "sim-small", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]});
    let answer = chat.ask(&body).await.expect(200);
    let whole = Contract::of(&chat_service::router::openapi());
    whole.hold(&Method::POST, "/v1/chat/completions", Some(("application/json", &body.to_string())), &answer);
}

/// [I-82]
#[tokio::test]
async fn the_parts_of_a_provider_s_stream_are_chunks_of_the_document_s() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    let call = json!([{"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{"}}]);
    let of_openai = [
        (json!({"role": "assistant", "content": "", "refusal": null}), json!(null)),
        (json!({"content": "hello"}), json!(null)),
        (json!({"tool_calls": call}), json!(null)),
        (json!({}), json!("stop")),
    ];
    for (delta, finish_reason) in &of_openai {
        let choices = [json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason})];
        feed.event(&json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "service_tier": "default",
            "choices": choices, "usage": null}));
    }
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 0}});
    feed.event(&json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}));
    feed.done();
    let body = json!({"model": "sim-small", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "Say hello"}]});
    let answer = chat.stream(&body).await;
    let media = answer.headers()["content-type"].to_str().expect("text").to_owned();
    assert!(answer.status() == 200 && media.starts_with("text/event-stream"), "{media}");
    let text = answer.text().await.expect("a whole stream");
    let parts = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|part| *part != "[DONE]");
    let parts: Vec<Value> = parts.map(|part| serde_json::from_str(part).expect("JSON")).collect();
    assert_eq!(parts.len(), of_openai.len() + 1, "{text}");
    let document = Contract::of(&chat_service::router::openapi());
    for part in &parts {
        document.hold_part("CompletionChunk", part);
    }
}

#[test]
fn the_committed_reference_of_the_variables_is_the_one_the_code_makes() {
    let committed = repository::read("docs/operations/CONFIGURATION.md");
    assert!(committed.contains(&format!("## chat-service\n\n{}", reference::<chat_service::config::ChatConfig>())), "{MEND}");
}
