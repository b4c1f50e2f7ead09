//! Streams, to each of their ends.

use std::time::Duration;

use contracts::usage::{CountedBy, Outcome};
use money::TokenUsage;
use serde_json::{Value, json};

use crate::harness::{Chat, PROMPT_TOKENS, read, read_until, streamed};

fn millis(count: u64) -> chassis::config::Millis {
    chassis::config::Millis(Duration::from_millis(count))
}

/// [trap 5]
#[tokio::test]
async fn a_stream_passes_as_it_comes_without_the_usage_that_nobody_asked_for() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    let first = r#"{"id":"c","unknown":[1.50],"choices":[{"index":0,"delta":{"role":"assistant","content":"hello"}}],"usage":null}"#;
    feed.raw(&format!(": hi\r\n\r\ndata: {first}\r\n\r\n"));
    feed.text(" world");
    feed.usage(9, 2);
    feed.done();
    let response = chat.stream(&streamed()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    let text = response.text().await.expect("a whole stream");
    assert!(text.starts_with(&format!("data: {first}\n\ndata: ")), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(!text.contains("prompt_tokens"), "{text}");
    let sent = chat.upstream.request(0).await;
    assert_eq!(sent.json()["stream_options"], json!({"include_usage": true}));
    assert_eq!((sent.header("x-request-id"), sent.header("authorization")), (id.as_str(), "Bearer sk-our-own"));
    let event = chat.settled().await;
    assert_eq!(event.request_id.to_string(), id);
    assert_eq!((event.usage, event.counted_by, event.outcome), (TokenUsage::text(9, 2), CountedBy::Reported, Outcome::Completed));
}

/// [trap 5]
#[tokio::test]
async fn the_usage_reaches_a_client_that_asked_for_it() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    feed.usage(9, 1);
    feed.done();
    let mut body = streamed();
    body["stream_options"] = json!({"include_usage": true, "other": 1});
    let text = chat.stream(&body).await.text().await.expect("a whole stream");
    assert!(text.contains(r#""prompt_tokens":9"#), "{text}");
    assert_eq!(chat.upstream.request(0).await.json()["stream_options"], body["stream_options"]);
}

/// [trap 6]
#[tokio::test]
async fn an_answer_without_usage_is_counted_by_the_tokenizer() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    feed.text(" world");
    feed.done();
    chat.stream(&streamed()).await.text().await.expect("a whole stream");
    let event = chat.settled().await;
    let counted = TokenUsage::text(PROMPT_TOKENS, 2);
    assert_eq!((event.usage, event.counted_by, event.outcome), (counted, CountedBy::Counted, Outcome::Completed));
}

/// [trap 2] [trap 4] [B-44]
#[tokio::test]
async fn a_stream_whose_client_left_is_read_to_its_usage() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    chat.leave(&streamed(), "hello").await;
    feed.text(" world");
    feed.text(" again");
    feed.usage(9, 3);
    feed.done();
    let event = chat.settled().await;
    assert_eq!((event.usage, event.counted_by, event.outcome), (TokenUsage::text(9, 3), CountedBy::Reported, Outcome::ClientClosed));
}

/// [trap 4] [B-44]
#[tokio::test]
async fn without_a_place_for_draining_the_provider_is_left_at_once_and_what_came_is_counted() {
    let chat = Chat::with(|config| config.drain.max_streams = 0).await;
    let feed = chat.upstream.stream();
    feed.text("hello world");
    chat.leave(&streamed(), "hello").await;
    feed.hung_up().await;
    let event = chat.settled().await;
    let counted = TokenUsage::text(PROMPT_TOKENS, 2);
    assert_eq!((event.usage, event.counted_by, event.outcome), (counted, CountedBy::Counted, Outcome::ClientClosed));
}

/// [trap 4]
#[tokio::test]
async fn draining_ends_when_its_time_is_over() {
    let chat = Chat::with(|config| config.drain.time = millis(1)).await;
    let feed = chat.upstream.stream();
    feed.text("hello world");
    chat.leave(&streamed(), "hello").await;
    feed.hung_up().await;
    assert_eq!(chat.settled().await.outcome, Outcome::ClientClosed);
}

/// [trap 4]
#[tokio::test]
async fn draining_ends_when_its_bytes_are_used_up() {
    let chat = Chat::with(|config| config.drain.max_bytes = 1000).await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    chat.leave(&streamed(), "hello").await;
    // More and more, until the gateway hangs up: in single pieces, each far below the cap.
    let babble = async {
        loop {
            feed.text(" world");
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = feed.hung_up() => {}
        () = babble => {}
    }
    let event = chat.settled().await;
    assert_eq!((event.counted_by, event.outcome), (CountedBy::Counted, Outcome::ClientClosed));
}

/// [trap 14] [trap 12]
#[tokio::test]
async fn a_stream_that_the_provider_cuts_ends_with_an_error_and_without_done() {
    for reset in [true, false] {
        let chat = Chat::start().await;
        let feed = chat.upstream.stream();
        feed.text("hello world");
        let mut response = chat.stream(&streamed()).await;
        let mut text = read_until(&mut response, "hello").await;
        // A reset, and an end that looks clean to HTTP.
        if reset {
            feed.cut();
        } else {
            drop(feed);
        }
        text.push_str(&response.text().await.expect("the gateway's end is in order"));
        let last: Value = serde_json::from_str(text.trim_end().rsplit("data: ").next().expect("an event")).expect("JSON");
        assert_eq!(last["error"]["code"], "upstream_failed");
        assert!(!text.contains("[DONE]"), "{text}");
        let event = chat.settled().await;
        let counted = TokenUsage::text(PROMPT_TOKENS, 2);
        assert_eq!((event.usage, event.counted_by, event.outcome), (counted, CountedBy::Counted, Outcome::UpstreamCut));
    }
}

/// [trap 14]
#[tokio::test]
async fn a_stream_whose_end_lacks_its_blank_line_is_complete() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    feed.text("hello world");
    feed.raw("data: [DONE]\n");
    drop(feed);
    let text = chat.stream(&streamed()).await.text().await.expect("a whole stream");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let event = chat.settled().await;
    let counted = TokenUsage::text(PROMPT_TOKENS, 2);
    assert_eq!((event.usage, event.counted_by, event.outcome), (counted, CountedBy::Counted, Outcome::Completed));
}

/// [trap 14]
#[tokio::test]
async fn an_event_that_is_cut_in_its_middle_reaches_nobody_and_one_that_only_lacks_its_end_does() {
    for (last, words) in
        [(r#"data: {"choices":[{"index":0,"delta":{"content":" wor"#, 1), (r#"data: {"choices":[{"delta":{"content":" world"}}]}"#, 2)]
    {
        let chat = Chat::start().await;
        let feed = chat.upstream.stream();
        feed.text("hello");
        feed.raw(last);
        drop(feed);
        let text = chat.stream(&streamed()).await.text().await.expect("the gateway's end is in order");
        assert_eq!(text.contains(" wor"), words == 2, "{text}");
        assert!(text.contains("upstream_failed") && !text.contains("[DONE]"), "{text}");
        let event = chat.settled().await;
        assert_eq!((event.usage, event.outcome), (TokenUsage::text(PROMPT_TOKENS, words), Outcome::UpstreamCut));
    }
}

/// [trap 6]
#[tokio::test]
async fn a_stream_that_cannot_be_read_passes_and_is_not_free() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    feed.raw("data: twelve bytes\n\n");
    feed.done();
    let text = chat.stream(&streamed()).await.text().await.expect("a whole stream");
    assert!(text.starts_with("data: twelve bytes\n\n"), "{text}");
    let event = chat.settled().await;
    assert_eq!((event.usage, event.counted_by), (TokenUsage::text(PROMPT_TOKENS, 3), CountedBy::Estimated));
}

/// [trap 14]
#[tokio::test]
async fn the_providers_own_error_in_mid_stream_reaches_the_client_and_is_the_end() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    feed.event(&json!({"error": {"message": "overloaded", "type": "server_error"}}));
    feed.done();
    let text = chat.stream(&streamed()).await.text().await.expect("a whole stream");
    assert!(text.contains("overloaded") && !text.contains("[DONE]"), "{text}");
    let event = chat.settled().await;
    assert_eq!((event.usage, event.outcome), (TokenUsage::text(PROMPT_TOKENS, 1), Outcome::UpstreamCut));
}

/// [trap 12] No byte goes out before the first item, so the client gets a status it can act on; and nothing is charged.
#[tokio::test]
async fn a_stream_that_fails_before_its_first_item_is_a_502_and_costs_nothing() {
    let chat = Chat::start().await;
    let feeds = [chat.upstream.stream(), chat.upstream.stream(), chat.upstream.stream()];
    let [cut, error, empty] = feeds;
    cut.raw(": connected\n\n");
    cut.cut();
    error.event(&json!({"error": {"message": "overloaded"}}));
    drop(empty);
    for _ in 0..3 {
        let answer = chat.ask(&streamed()).await.expect(502);
        assert_eq!(answer.json["error"]["code"], "upstream_failed");
    }
    chat.upstream.whole(200, "{}");
    chat.ask(&streamed()).await.expect(502);
    testkit::eventually("four settlements", || async { (chat.settlements().await.len() == 4).then_some(()) }).await;
    for (event, _) in chat.settlements().await {
        assert_eq!((event.usage, event.outcome), (TokenUsage::default(), Outcome::Failed));
    }
}

/// [trap 13]
#[tokio::test]
async fn a_provider_that_never_begins_is_a_504_and_costs_nothing() {
    let chat = Chat::with(|config| config.provider.first_byte_timeout = millis(20)).await;
    chat.upstream.hang();
    let answer = chat.ask(&streamed()).await.expect(504);
    assert_eq!(answer.json["error"]["code"], "upstream_timeout");
    let event = chat.settled().await;
    assert_eq!((event.usage, event.outcome), (TokenUsage::default(), Outcome::Failed));
}

/// [trap 13]
#[tokio::test]
async fn a_provider_that_falls_silent_ends_the_stream_with_an_error() {
    let chat = Chat::with(|config| config.provider.idle_timeout = millis(50)).await;
    let feed = chat.upstream.stream();
    feed.text("hello world");
    let text = chat.stream(&streamed()).await.text().await.expect("the gateway's end is in order");
    assert!(text.contains("upstream_timeout") && !text.contains("[DONE]"), "{text}");
    feed.hung_up().await;
    let event = chat.settled().await;
    assert_eq!((event.usage, event.outcome), (TokenUsage::text(PROMPT_TOKENS, 2), Outcome::UpstreamCut));
}

/// [trap 13]
#[tokio::test]
async fn the_deadline_ends_a_stream_that_goes_on_for_ever() {
    let chat = Chat::with(|config| config.provider.deadline = millis(400)).await;
    let feed = chat.upstream.stream();
    feed.text("hello world");
    let response = chat.stream(&streamed()).await;
    assert_eq!(response.status(), 200);
    let text = response.text().await.expect("the gateway's end is in order");
    assert!(text.contains("upstream_timeout") && !text.contains("[DONE]"), "{text}");
    let event = chat.settled().await;
    assert_eq!((event.usage, event.counted_by, event.outcome), (TokenUsage::text(PROMPT_TOKENS, 2), CountedBy::Counted, Outcome::Deadline));
}

/// [trap 13]
#[tokio::test]
async fn a_silent_provider_does_not_make_a_silent_connection() {
    let chat = Chat::with(|config| config.provider.keep_alive = millis(10)).await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    let mut response = chat.stream(&streamed()).await;
    let text = read_until(&mut response, ": keep-alive\n\n: keep-alive\n\n").await;
    assert!(text.starts_with("data: "), "{text}");
    feed.done();
    assert!(response.text().await.expect("an end").ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_stop_lets_streams_end_in_time_and_settles_those_that_do_not() {
    let chat = Chat::with(|config| config.http.shutdown_grace = millis(600)).await;
    let (quick, slow) = (chat.upstream.stream(), chat.upstream.stream());
    quick.text("hello");
    slow.text("hello world");
    let mut first = chat.stream(&streamed()).await;
    read_until(&mut first, "hello").await;
    let second = chat.stream(&streamed()).await;
    chat.begin_stop();
    quick.usage(9, 1);
    quick.done();
    assert!(first.text().await.expect("a whole stream").ends_with("data: [DONE]\n\n"));
    let text = second.text().await.expect("the gateway's end is in order");
    assert!(text.contains("service_unavailable") && !text.contains("[DONE]"), "{text}");
    drop(slow);
    let redis = chat.stop().await;
    let events: Vec<_> = read(&redis).await.expect("Redis").into_iter().map(|(event, _)| event).collect();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!((events[0].outcome, events[1].outcome), (Outcome::Completed, Outcome::Shutdown));
    assert_eq!(events[1].usage.output_tokens, 2);
}

/// [trap 14]
#[tokio::test]
async fn an_event_beyond_the_limit_ends_the_stream() {
    let chat = Chat::with(|config| config.provider.max_frame_bytes = 1000).await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    feed.raw(&format!("data: {}", "x".repeat(2000)));
    let text = chat.stream(&streamed()).await.text().await.expect("the gateway's end is in order");
    assert!(text.contains("upstream_failed") && !text.contains("xxx"), "{text}");
    feed.hung_up().await;
    assert_eq!(chat.settled().await.outcome, Outcome::UpstreamCut);
}

/// A client that reads nothing holds up the provider; the deadline ends it.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_at_the_deadline() {
    let chat = Chat::with(|config| config.provider.deadline = millis(500)).await;
    let feed = chat.upstream.stream();
    let response = {
        feed.text("hello");
        chat.stream(&streamed()).await
    };
    let long = " world".repeat(20_000);
    for _ in 0..300 {
        feed.text(&long);
    }
    feed.hung_up().await;
    let event = testkit::eventually("a settlement", || async { chat.settlements().await.first().cloned() }).await.0;
    assert_eq!(event.outcome, Outcome::Deadline);
    drop(response);
}
