//! Settlements on their way to billing-service.

use std::sync::OnceLock;

use chassis::telemetry::{TelemetryConfig, TelemetryGuard};
use contracts::usage::{CountedBy, Outcome};
use money::TokenUsage;

use crate::harness::{Chat, read, streamed, whole};

#[tokio::test]
async fn settlements_survive_an_outage_of_redis() {
    let mut chat = Chat::start().await;
    let feeds: Vec<_> = (0..3).map(|_| chat.upstream.stream()).collect();
    let mut responses = Vec::new();
    for feed in &feeds {
        feed.text("hello");
        responses.push(chat.stream(&streamed()).await);
    }
    chat.redis.kill();
    for (number, (feed, response)) in (1..).zip(feeds.iter().zip(responses)) {
        feed.usage(9, number);
        feed.done();
        assert!(response.text().await.expect("a whole stream").ends_with("[DONE]\n\n"));
    }
    chat.redis.restart().await.expect("Redis");
    testkit::eventually("all settlements", || async { (chat.settlements().await.len() >= 3).then_some(()) }).await;
    let redis = chat.stop().await;
    let mut outputs: Vec<u64> = read(&redis).await.expect("Redis").iter().map(|(event, _)| event.usage.output_tokens).collect();
    outputs.sort_unstable();
    assert_eq!(outputs, [1, 2, 3], "each once, however often it was tried");
}

/// [B-42] Redis is asked for one at a time whether it is on its disk, and what comes meanwhile is no less at risk.
#[tokio::test]
async fn what_was_settled_while_redis_was_asked_for_another_survives_a_power_failure_too() {
    let mut chat = Chat::start().await;
    let feeds = [chat.upstream.stream(), chat.upstream.stream()];
    let mut responses = Vec::new();
    for feed in &feeds {
        feed.text("hello");
        responses.push(chat.stream(&streamed()).await);
    }
    // Nothing reaches its disk from now on, so that each question is open until the power goes.
    let never = redis::cmd("CONFIG").arg("SET").arg("appendfsync").arg("no").to_owned();
    let () = never.query_async(&mut chat.redis.redis.connection()).await.expect("Redis");
    let on_disk = chat.redis.log_bytes();
    for (number, (feed, response)) in (1..).zip(feeds.iter().zip(responses)) {
        feed.usage(9, number);
        feed.done();
        response.text().await.expect("a whole stream");
        let settled = usize::try_from(number).expect("a number");
        testkit::eventually("it is settled", || async { (chat.settlements().await.len() == settled).then_some(()) }).await;
    }
    chat.redis.lose_power(on_disk);
    chat.redis.restart().await.expect("Redis");
    testkit::eventually("both are settled again", || async { (chat.settlements().await.len() == 2).then_some(()) }).await;
    let redis = chat.stop().await;
    let mut outputs: Vec<u64> = read(&redis).await.expect("Redis").iter().map(|(event, _)| event.usage.output_tokens).collect();
    outputs.sort_unstable();
    assert_eq!(outputs, [1, 2]);
}

/// [B-81] [B21]
#[tokio::test]
async fn an_orderly_stop_waits_for_the_settlement_of_what_is_in_flight() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    let response = chat.stream(&streamed()).await;
    chat.begin_stop();
    feed.usage(9, 1);
    feed.done();
    response.text().await.expect("a whole stream");
    let event = chat.only_settlement().await;
    assert_eq!((event.usage, event.counted_by, event.outcome), (TokenUsage::text(9, 1), CountedBy::Reported, Outcome::Completed));
}

/// [trap 2] [B-81] What waits for Redis, and what ends while the process ends, is handed over all the same.
#[tokio::test]
async fn a_stop_without_redis_settles_at_billing_directly_until_the_last_completion_has_ended() {
    let mut chat = Chat::start().await;
    let feeds = [chat.upstream.stream(), chat.upstream.stream()];
    let mut responses = Vec::new();
    for feed in &feeds {
        feed.text("hello");
        responses.push(chat.stream(&streamed()).await);
    }
    chat.redis.kill();
    let [first, second] = feeds;
    first.usage(9, 1);
    first.done();
    responses.remove(0).text().await.expect("a whole stream");
    chat.begin_stop();
    second.usage(9, 2);
    second.done();
    responses.remove(0).text().await.expect("a whole stream");
    let neighbors = chat.neighbors.clone();
    chat.stop().await;
    let usages: Vec<_> = neighbors.settled().iter().map(|event| (event.usage, event.counted_by, event.outcome)).collect();
    let usage = |output| (TokenUsage::text(9, output), CountedBy::Reported, Outcome::Completed);
    assert_eq!(usages, [usage(1), usage(2)]);
}

/// A completion has ended, and its settlement waits for a Redis that is gone.
async fn unsettled() -> Chat {
    let mut chat = Chat::start().await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    let response = chat.stream(&streamed()).await;
    chat.redis.kill();
    feed.usage(9, 1);
    feed.done();
    response.text().await.expect("a whole stream");
    chat
}

/// What the process counts as lost, as its metrics say it; nothing, before there was anything.
fn lost() -> Option<String> {
    let metrics = chassis::telemetry::render_metrics();
    metrics.lines().find(|line| line.starts_with("chat_settlements_lost_total")).map(ToOwned::to_owned)
}

/// Redis may have taken it without our hearing of it: then billing-service has settled it already.
#[tokio::test]
async fn a_settlement_that_billing_refuses_is_not_tried_again() {
    let chat = unsettled().await;
    chat.neighbors.billing_answers(409);
    let neighbors = chat.neighbors.clone();
    chat.stop().await;
    assert_eq!(neighbors.settled().len(), 1);
}

/// That billing-service is away says nothing about the request.
#[tokio::test]
async fn a_settlement_that_billing_cannot_take_now_is_tried_again_until_it_is_taken() {
    let (chat, lost_before) = (unsettled().await, lost());
    let neighbors = chat.neighbors.clone();
    neighbors.billing_answers(503);
    chat.begin_stop();
    testkit::eventually("it is tried again", || async { (neighbors.settled().len() >= 2).then_some(()) }).await;
    neighbors.billing_answers(200);
    chat.stop().await;
    // What nobody has taken when the process ends is counted.
    assert_eq!(lost(), lost_before);
    let told = neighbors.settled();
    assert!(told.iter().all(|event| (event.request_id, event.usage) == (told[0].request_id, TokenUsage::text(9, 1))), "{told:?}");
}

/// One trace, from the client's own header to auth, billing, the provider, and the message that billing consumes.
#[tokio::test]
async fn everything_about_a_request_belongs_to_one_trace() {
    static TELEMETRY: OnceLock<TelemetryGuard> = OnceLock::new();
    TELEMETRY.get_or_init(|| {
        let config = TelemetryConfig { filter: "info".into(), format: "json".into(), otlp_endpoint: None, sample_ratio: 1.0 };
        chassis::telemetry::init(&config, "chat-service", "test").expect("telemetry")
    });
    let chat = Chat::start().await;
    chat.upstream.whole(200, r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let client = chat.client().header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    client.post("/v1/chat/completions", &whole()).await.expect(200);
    let message = testkit::eventually("a settlement", || async { chat.settlements().await.first().cloned() }).await.1;
    let mut spans = chat.neighbors.traces();
    assert_eq!(spans.len(), 2, "the look-up and the lease");
    spans.extend([chat.upstream.request(0).await.header("traceparent").to_owned(), message]);
    for span in &spans {
        assert_eq!(span.split('-').nth(1), Some(trace), "{spans:?}");
    }
}

/// [trap 4] A drained stream has no connection that the service would wait for.
#[tokio::test]
async fn a_stop_settles_streams_that_are_read_without_a_client() {
    let chat = Chat::start().await;
    let feed = chat.upstream.stream();
    feed.text("hello world");
    chat.leave(&streamed(), "hello").await;
    let event = chat.only_settlement().await;
    assert_eq!((event.usage.output_tokens, event.counted_by, event.outcome), (2, CountedBy::Counted, Outcome::Shutdown));
    drop(feed);
}
