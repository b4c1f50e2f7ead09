//! Against the simulated provider: what is settled equals the provider's own ledger, to the token.

use std::collections::HashMap;

use contracts::usage::{CountedBy, Outcome, UsageEvent};
use llm_simulator::{Ended, Knobs, Options, Running, Simulator, UsageFrames};
use serde_json::{Value, json};

use crate::harness::Chat;

async fn start(knobs: Knobs) -> (Chat, Running) {
    let simulator = Simulator::start(Options { knobs, ..Options::default() }).await.expect("a simulator");
    let base = simulator.base_url.clone();
    let chat = Chat::with(|config| {
        config.provider.base_url = base;
        config.limits.requests_per_window = 1000;
    })
    .await;
    (chat, simulator)
}

fn request(stream: bool, number: u64) -> Value {
    let content = "tell me more ".repeat(usize::try_from(number % 5 + 1).expect("a few"));
    json!({
        "model": if number.is_multiple_of(2) { "sim-small" } else { "sim-large" },
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "name": "ann", "content": content}],
        "stream": stream,
        "n": number % 2 + 1,
    })
}

/// All settlements by request id, once there are so many.
async fn settled(chat: &Chat, count: usize) -> HashMap<String, UsageEvent> {
    testkit::eventually("all settlements", || async { (chat.settlements().await.len() >= count).then_some(()) }).await;
    chat.settlements().await.into_iter().map(|(event, _)| (event.request_id.to_string(), event)).collect()
}

async fn assert_equal(chat: Chat, simulator: &Running, requests: usize) -> HashMap<String, UsageEvent> {
    let ledger = simulator.ended(requests as u64).await;
    let settled = settled(&chat, requests).await;
    assert_eq!(ledger.len(), settled.len());
    for row in &ledger {
        let usage = settled[&row.request_id].usage;
        assert_eq!((usage.total_input(), usage.total_output()), (row.input_tokens, row.output_tokens), "{row:?}");
    }
    settled
}

/// [trap 6]
#[tokio::test]
async fn what_is_settled_equals_the_providers_ledger_with_and_without_usage_frames() {
    for usage in [UsageFrames::NullFirst, UsageFrames::On, UsageFrames::ZeroFirst, UsageFrames::Off] {
        let (chat, simulator) = start(Knobs { usage, ..Knobs::default() }).await;
        for number in 0..8 {
            let body = request(number >= 4, number);
            let response = chat.stream(&body).await;
            assert_eq!(response.status(), 200);
            let text = response.text().await.expect("a whole answer");
            assert!(number < 4 || text.ends_with("data: [DONE]\n\n"), "{text}");
        }
        let counted_by = if usage == UsageFrames::Off { CountedBy::Counted } else { CountedBy::Reported };
        for event in assert_equal(chat, &simulator, 8).await.values() {
            assert_eq!((event.counted_by, event.outcome), (counted_by, Outcome::Completed));
        }
    }
}

/// [trap 14]
#[tokio::test]
async fn what_is_settled_equals_the_providers_ledger_when_it_cuts_or_fails_in_mid_stream() {
    let faults = [Knobs { cut_after: Some(5), ..Knobs::default() }, Knobs { error_after: Some(7), ..Knobs::default() }];
    for knobs in faults {
        let (chat, simulator) = start(knobs).await;
        for number in 0..4 {
            let mut body = request(true, number);
            body["n"] = 1.into();
            let text = chat.stream(&body).await.text().await.expect("the gateway's end is in order");
            assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{text}");
        }
        for event in assert_equal(chat, &simulator, 4).await.values() {
            assert_eq!((event.counted_by, event.outcome), (CountedBy::Counted, Outcome::UpstreamCut));
        }
    }
}

/// [trap 2] [trap 4] [B-44]
#[tokio::test]
async fn what_is_settled_equals_the_providers_ledger_when_clients_leave() {
    let (chat, simulator) = start(Knobs { output_tokens: 200, pace_ms: 1, ..Knobs::default() }).await;
    for number in 0..3 {
        chat.leave(&request(true, number), "data: ").await;
    }
    let settled = assert_equal(chat, &simulator, 3).await;
    assert!(settled.values().all(|event| event.outcome == Outcome::ClientClosed), "{settled:?}");
    assert!(simulator.ledger().iter().all(|row| row.ended == Ended::Completed), "each was read to its end");
}

#[tokio::test]
async fn what_the_provider_refuses_is_settled_with_nothing() {
    let (chat, simulator) = start(Knobs { error_percent: 50, limit_percent: 25, ..Knobs::default() }).await;
    for number in 0..8 {
        chat.ask(&request(number % 2 == 0, number)).await;
    }
    assert_equal(chat, &simulator, 8).await;
}
