//! What the process tells about the calls of models. In a program of its own: the log of a process can be collected only once.

#[expect(dead_code, reason = "the harness is made for the tests of the API")]
#[path = "api/harness.rs"]
mod harness;
#[expect(dead_code, reason = "the harness is made for the tests of the API")]
#[path = "api/neighbors.rs"]
mod neighbors;
#[expect(dead_code, reason = "the harness is made for the tests of the API")]
#[path = "api/upstream.rs"]
mod upstream;

use contracts::usage::Outcome;
use harness::{Chat, streamed, whole};
use serde_json::{Value, json};
use testkit::logs::Logs;

const PROMPT: &str = "a-secret-of-the-prompt";
const ANSWER: &str = "a-secret-of-the-answer";

fn secretly(mut body: Value) -> Value {
    body["messages"][0]["content"] = PROMPT.into();
    body["max_tokens"] = 77.into();
    body["tools"] = json!([{"type": "function", "function": {"name": PROMPT}}]);
    body
}

/// Whole, streamed, refused, cut, and not understood.
async fn call_in_every_way(chat: &Chat) {
    let answer = json!({"choices": [{"index": 0, "message": {"content": ANSWER}}], "usage": {"prompt_tokens": 9, "completion_tokens": 5}});
    chat.upstream.whole(200, &answer.to_string());
    chat.ask(&secretly(whole())).await.expect(200);
    let streams = [chat.upstream.stream(), chat.upstream.stream()];
    for feed in &streams {
        feed.text(ANSWER);
        feed.raw(&format!("data: {ANSWER}\n\n"));
    }
    let [ended, cut] = streams;
    ended.done();
    drop(cut);
    for _ in 0..2 {
        chat.stream(&secretly(streamed())).await.text().await.expect("an end in order");
    }
    for (status, body) in [(400, json!({"error": {"message": PROMPT}}).to_string()), (500, ANSWER.into()), (200, format!("<{ANSWER}>"))] {
        chat.upstream.whole(status, &body);
        chat.ask(&secretly(whole())).await;
    }
    let mut wrong = secretly(whole());
    wrong["n"] = PROMPT.into();
    chat.ask(&wrong).await.expect(400);
}

/// [trap 20]
#[tokio::test]
async fn a_calls_span_has_the_conventions_attributes_and_nothing_tells_what_was_said() {
    let logs = Logs::capture();
    let chat = Chat::start().await;
    let key = chat.key.clone();
    call_in_every_way(&chat).await;
    testkit::eventually("all settlements", || async { (chat.settlements().await.len() == 6).then_some(()) }).await;
    let first = chat.settlements().await.swap_remove(0).0;
    assert_eq!(first.outcome, Outcome::Completed);
    chat.stop().await;
    let text = logs.text();
    let span = text.lines().find(|line| line.contains(&first.request_id.to_string()) && line.contains("gen_ai.usage.output_tokens"));
    let span = span.expect("the span of the first call, with its end");
    for attribute in [
        r#"otel.name="chat sim-small""#,
        r#"otel.kind="client""#,
        r#"gen_ai.operation.name="chat""#,
        r#"gen_ai.provider.name="openai""#,
        r#"gen_ai.request.model="sim-small""#,
        "gen_ai.request.max_tokens=77",
        "gen_ai.usage.input_tokens=9",
        "gen_ai.usage.output_tokens=5",
        r#"trivet.outcome="completed""#,
    ] {
        assert!(span.contains(attribute), "{attribute} is not in {span}");
    }
    assert!(text.contains(r#"error.type="upstream_cut""#) && text.contains(r#"otel.status_code="ERROR""#));
    for secret in [PROMPT, ANSWER, "sk-our-own", &key] {
        let told = text.lines().find(|line| line.contains(secret));
        assert_eq!(told, None, "{secret} was told");
    }
}
