//! How much a caller and the service may have at once.

use std::time::Duration;

use chassis::config::Millis;
use futures::future::join_all;
use identity::VerifiedApiKey;
use serde_json::Value;
use testkit::http::TestClient;

use crate::harness::{Chat, streamed, whole};
use crate::refusals::assert_shape;

const ANSWER: &str = r#"{"choices":[]}"#;

#[tokio::test]
async fn of_many_requests_at_once_exactly_the_limit_is_let_through() {
    let chat = Chat::with(|config| config.limits.requests_per_window = 5).await;
    for _ in 0..5 {
        chat.upstream.whole(200, ANSWER);
    }
    let body = whole();
    let answers = join_all((0..20).map(|_| chat.ask(&body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 5);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!((refused.status.as_u16(), &refused.json["error"]["code"]), (429, &"rate_limit_exceeded".into()));
        let wait: u64 = refused.header("retry-after").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(chat.admitted().await, 5, "what is refused takes nothing");
}

#[tokio::test]
async fn a_keys_own_limit_counts_for_it_alone_and_ends_with_the_window() {
    let mut chat = Chat::with(|config| config.limits.window = Millis(Duration::from_millis(1500))).await;
    let other = chat.key.clone();
    chat.key = chat.new_key(VerifiedApiKey {
        requests_per_minute: Some(1),
        api_key_id: identity::ApiKeyId::new(&chassis::Clock::system(), &chassis::Random::system()),
        ..chat.verified.clone()
    });
    chat.upstream.whole(200, ANSWER);
    chat.ask(&whole()).await.expect(200);
    chat.ask(&whole()).await.expect(429);
    let limited = std::mem::replace(&mut chat.key, other);
    chat.upstream.whole(200, ANSWER);
    chat.ask(&whole()).await.expect(200);
    chat.key = limited;
    chat.upstream.whole(200, ANSWER);
    testkit::eventually("room in the window", || async { Some(chat.ask(&whole()).await).filter(|answer| answer.status == 200) }).await;
}

/// Requests without money are work too: an organization that has none is held to its limits, and billing-service is asked no more of it.
#[tokio::test]
async fn requests_that_money_does_not_reach_for_count_for_the_limits_of_requests() {
    for of_organization in [false, true] {
        let chat = Chat::with(|config| {
            let limits = &mut config.limits;
            if of_organization {
                limits.organization_requests_per_window = Some(3);
            } else {
                limits.requests_per_window = 3;
            }
        })
        .await;
        chat.neighbors.has(0);
        for _ in 0..3 {
            chat.ask(&whole()).await.expect(402);
        }
        for _ in 0..2 {
            assert_shape(&chat.ask(&whole()).await, 429, "requests", "rate_limit_exceeded", &Value::Null);
        }
        assert_eq!((chat.neighbors.asked().len(), chat.admitted().await), (3, 0));
    }
}

/// [trap 14]
#[tokio::test]
async fn without_a_place_for_the_settlement_nothing_is_begun() {
    let chat = Chat::with(|config| config.limits.settlement_queue = 1).await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    let response = chat.stream(&streamed()).await;
    let refused = chat.ask(&whole()).await.expect(503);
    assert_eq!((refused.header("retry-after"), &refused.json["error"]["code"]), ("1", &"service_unavailable".into()));
    assert_eq!((chat.upstream.seen().len(), chat.admitted().await), (1, 1));
    feed.done();
    response.text().await.expect("a whole stream");
    chat.upstream.whole(200, ANSWER);
    testkit::eventually("a free place", || async { Some(chat.ask(&whole()).await).filter(|answer| answer.status == 200) }).await;
}

#[tokio::test]
async fn the_limit_of_an_organization_counts_for_all_its_keys_and_for_no_other() {
    let mut chat = Chat::with(|config| config.limits.organization_requests_per_window = Some(2)).await;
    let (clock, random) = (chassis::Clock::system(), chassis::Random::system());
    let second = VerifiedApiKey { api_key_id: identity::ApiKeyId::new(&clock, &random), ..chat.verified.clone() };
    let stranger = VerifiedApiKey { organization_id: identity::OrganizationId::new(&clock, &random), ..second.clone() };
    let (first, second, stranger) = (chat.key.clone(), chat.new_key(second), chat.new_key(stranger));
    for (key, status) in [(&first, 200), (&second, 200), (&first, 429), (&second, 429), (&stranger, 200)] {
        chat.key.clone_from(key);
        if status == 200 {
            chat.upstream.whole(200, ANSWER);
        }
        chat.ask(&whole()).await.expect(status);
    }
}

/// [trap 14] What is held is held until the request is over, not only until its body was read.
#[tokio::test]
async fn large_bodies_have_so_much_memory_at_once_and_small_ones_do_not_wait_for_them() {
    let chat = Chat::with(|config| (config.limits.body_limit, config.limits.body_bytes_in_flight) = (300_000, 300_000)).await;
    let large = |mut body: serde_json::Value| {
        body["messages"][0]["content"] = "x".repeat(200_000).into();
        body
    };
    let feed = chat.upstream.stream();
    feed.text("hello");
    let response = chat.stream(&large(streamed())).await;
    assert_eq!(response.status(), 200);
    let refused = chat.ask(&large(whole())).await.expect(503);
    assert_eq!((refused.header("retry-after"), &refused.json["error"]["code"]), ("1", &"service_unavailable".into()));
    // Its length is not announced.
    let chunks = large(whole()).to_string().into_bytes().chunks(10_000).map(bytes::Bytes::copy_from_slice).collect::<Vec<_>>();
    let chunks = futures::stream::iter(chunks.into_iter().map(Ok::<_, std::convert::Infallible>));
    let client = chassis::http::client::builder().build().expect("a client");
    let request = client.post(format!("http://{}/v1/chat/completions", chat.address)).bearer_auth(&chat.key);
    assert_eq!(request.body(reqwest::Body::wrap_stream(chunks)).send().await.expect("an answer").status(), 503);
    chat.upstream.whole(200, ANSWER);
    chat.ask(&whole()).await.expect(200);
    assert_eq!((chat.upstream.seen().len(), chat.admitted().await), (2, 2), "what is refused takes nothing");
    let held = async || {
        let metrics = TestClient::new(chat.private).get("/metrics").await.expect(200).text;
        metrics.lines().find_map(|line| line.strip_prefix("chat_body_bytes_held ")?.parse::<f64>().ok()).expect("a gauge")
    };
    assert!(held().await > 200_000.0);
    feed.done();
    response.text().await.expect("a whole stream");
    chat.upstream.whole(200, ANSWER);
    let served = || async { Some(chat.ask(&large(whole())).await).filter(|answer| answer.status == 200) };
    testkit::eventually("memory for a large body", served).await;
    testkit::eventually("nothing is held", || async { (held().await == 0.0).then_some(()) }).await;
}

/// [trap 14] Each organization has a quarter of the memory, or what one of the largest bodies needs.
#[tokio::test]
async fn an_organization_whose_bodies_are_too_large_together_is_told_so_and_no_other_has_less_memory_for_it() {
    let mut chat = Chat::with(|config| (config.limits.body_limit, config.limits.body_bytes_in_flight) = (100_000, 400_000)).await;
    let large = |mut body: Value| {
        body["messages"][0]["content"] = "x".repeat(70_000).into();
        body
    };
    let (clock, random) = (chassis::Clock::system(), chassis::Random::system());
    let stranger = VerifiedApiKey {
        api_key_id: identity::ApiKeyId::new(&clock, &random),
        organization_id: identity::OrganizationId::new(&clock, &random),
        ..chat.verified.clone()
    };
    let stranger = chat.new_key(stranger);
    let feed = chat.upstream.stream();
    feed.text("hello");
    let response = chat.stream(&large(streamed())).await;
    assert_eq!(response.status(), 200);
    let refused = chat.ask(&large(whole())).await;
    assert_shape(&refused, 429, "requests", "rate_limit_exceeded", &Value::Null);
    assert_eq!(refused.header("retry-after"), "1");
    chat.upstream.whole(200, ANSWER);
    chat.ask(&whole()).await.expect(200);
    let own = std::mem::replace(&mut chat.key, stranger);
    chat.upstream.whole(200, ANSWER);
    chat.ask(&large(whole())).await.expect(200);
    chat.key = own;
    feed.done();
    response.text().await.expect("a whole stream");
    chat.upstream.whole(200, ANSWER);
    let served = || async { Some(chat.ask(&large(whole())).await).filter(|answer| answer.status == 200) };
    testkit::eventually("what was given back", served).await;
}
