//! Money for a request: taken from the lease before the call, and given back when the call was not made.

use std::time::Duration;

use chassis::config::Millis;
use contracts::Shard;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use llm::ChatRequest;
use money::TokenUsage;
use serde_json::json;
use testkit::eventually;

use crate::harness::{Chat, read, read_until, streamed, whole};
use crate::neighbors::PORTION;

const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;

/// What is taken for [`whole`]: its prompt, and the longest answer at two micro-units a token.
async fn cost_of_one(chat: &Chat) -> i64 {
    chat.upstream.whole(200, ANSWER);
    chat.ask(&whole()).await.expect(200);
    eventually("the settlement", || async { chat.settlements().await.first().map(|(event, _)| event.reserved_micros) }).await
}

/// [B-37] [B-38] [trap 3]
#[tokio::test(flavor = "multi_thread")]
async fn with_money_for_k_requests_exactly_k_of_many_at_once_reach_the_provider() {
    const K: i64 = 7;
    let cost = cost_of_one(&Chat::start().await).await;
    let chat = Chat::start().await;
    chat.neighbors.has(K * cost + cost - 1);
    let feeds: Vec<_> = (0..K).map(|_| chat.upstream.stream()).collect();
    for feed in &feeds {
        feed.text("hello");
    }
    let mut asked = whole();
    asked["stream"] = json!(true);
    let body = &asked;
    // The answers stay open, so that nothing comes back.
    let answers = join_all((0..40).map(|_| chat.stream(body))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    statuses.sort_unstable();
    let (served, refused) = statuses.split_at(usize::try_from(K).expect("a few"));
    assert!(served.iter().all(|status| *status == 200) && refused.iter().all(|status| *status == 402), "{statuses:?}");
    assert_eq!(chat.in_flight().await, u64::try_from(K).expect("a few"));
    drop(feeds);
}

/// However many an organization without money sends, one question of it at a time is asked, those who waited for the answer share it, and
/// the places that are left are for others.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_for_money_that_there_is_not_share_the_answer_and_one_more_than_may_wait_is_a_429() {
    // One asks, 256 wait for it, and there is one more.
    const MANY: usize = 258;
    let chat = Chat::start().await;
    chat.neighbors.has(0);
    // The key and what the organization may do are known from here on.
    chat.ask(&whole()).await.expect(402);
    let held = chat.neighbors.hold_leases().await;
    // So many connections at once may wait longer for their place than a service waits for another one.
    let client = chassis::http::client::builder().connect_timeout(Duration::from_mins(1)).build().expect("a client");
    let body = whole().to_string();
    let url = format!("http://{}/v1/chat/completions", chat.address);
    let mut answers: FuturesUnordered<_> = (0..MANY).map(|_| client.post(&url).bearer_auth(&chat.key).body(body.clone()).send()).collect();
    let refused = answers.next().await.expect("many were asked").expect("an answer");
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().ok()), (429, Some("1")));
    drop(held);
    while let Some(answer) = answers.next().await {
        assert_eq!(answer.expect("an answer").status(), 402);
    }
    // The one before, the first of the many, and the next for all that came while that one was asked.
    let asked = chat.neighbors.asked().len();
    assert!(asked <= 3, "{asked}");
    assert_eq!(chat.admitted().await, 0);
}

/// A wallet that does not reach for one request reaches for a smaller one that waits behind it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_to_one_is_not_refused_to_who_needs_less() {
    let cost = cost_of_one(&Chat::start().await).await;
    let chat = Chat::start().await;
    chat.neighbors.has(cost - 1);
    let (large, mut small) = (whole(), whole());
    small["max_completion_tokens"] = 10.into();
    for _ in 0..8 {
        chat.upstream.whole(200, ANSWER);
    }
    let bodies = (0..16).map(|number| if number % 2 == 0 { &large } else { &small });
    let answers = join_all(bodies.map(|body| chat.ask(body))).await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, if number % 2 == 0 { 402 } else { 200 }, "{number}: {}", answer.text);
    }
}

/// [B-40] What was not used can be spent at once.
#[tokio::test]
async fn the_unused_part_goes_back_to_the_lease_and_billing_is_asked_once() {
    let chat = Chat::start().await;
    for _ in 0..20 {
        chat.upstream.whole(200, ANSWER);
        chat.ask(&whole()).await.expect(200);
    }
    eventually("the settlements", || async { (chat.settlements().await.len() == 20).then_some(()) }).await;
    assert_eq!((chat.remaining().await, chat.neighbors.asked().len()), (PORTION - 20 * (9 + 2), 1));
    assert_eq!(chat.in_flight().await, 0);
}

/// A lease is filled in passing: no request waits for it, and billing-service may be away for as long as it lasts.
#[tokio::test]
async fn a_lease_that_runs_low_is_filled_before_it_is_dry() {
    let chat = Chat::start().await;
    let cost = cost_of_one(&chat).await;
    let key = Shard::of(chat.verified.organization_id).key(&format!("lease:{}", chat.verified.organization_id));
    let () = redis::cmd("HSET")
        .arg(key)
        .arg("remaining")
        .arg(PORTION / 4 + cost - 1)
        .query_async(&mut chat.redis.redis.connection())
        .await
        .expect("Redis");
    chat.neighbors.billing_answers(503);
    chat.upstream.whole(200, ANSWER);
    chat.ask(&whole()).await.expect(200);
    chat.neighbors.billing_answers(0);
    chat.upstream.whole(200, ANSWER);
    let feed = chat.upstream.stream();
    chat.ask(&whole()).await.expect(200);
    feed.text("hello");
    let _open = chat.stream(&streamed()).await;
    eventually("a filled lease", || async { (chat.remaining().await > PORTION).then_some(()) }).await;
    assert!(chat.neighbors.asked().last().is_some_and(|request| request.needed_micros == 0));
}

/// [trap 3] Whether it was admitted is not known: what may have been taken is given back, and nothing is recorded.
#[tokio::test]
async fn an_admission_that_redis_did_not_answer_is_undone() {
    let chat = Chat::start().await;
    cost_of_one(&chat).await;
    let before = chat.remaining().await;
    for body in [whole(), streamed()] {
        chat.redis.pause();
        chat.ask(&body).await.expect(503);
        chat.redis.resume();
    }
    eventually("what was taken is back", || async { (chat.in_flight().await == 0 && chat.remaining().await == before).then_some(()) })
        .await;
    assert_eq!(chat.upstream.seen().len(), 1, "the provider was not asked");
    let redis = chat.stop().await;
    assert_eq!(read(&redis).await.expect("Redis").len(), 1, "and nothing is settled");
}

/// The flight ends by itself when nobody settles it.
#[tokio::test]
async fn a_request_in_flight_is_noted_with_its_deadline_and_what_it_has_used_so_far() {
    let chat = Chat::with(|config| config.limits.checkpoint = Millis(Duration::from_millis(20))).await;
    let feed = chat.upstream.stream();
    feed.text("hello");
    feed.text(" world");
    let mut response = chat.stream(&streamed()).await;
    read_until(&mut response, "world").await;
    let shard = Shard::of(chat.verified.organization_id);
    let (clock, _) = testkit::clock();
    let late = clock.now() + chrono::TimeDelta::seconds(360);
    let flight = eventually("a checkpoint", || async {
        let expired = chat.admissions.expired(shard, late, 0, 10).await.expect("Redis");
        let expired: Vec<_> = expired.into_iter().map(|flight| flight.expect("a note that can be read")).collect();
        expired.into_iter().next().filter(|flight| flight.checkpoint.is_some())
    })
    .await;
    assert_eq!(flight.checkpoint, Some(TokenUsage::text(9, 2)), "what was delivered, and no more");
    assert!(chat.admissions.expired(shard, late - chrono::TimeDelta::milliseconds(1), 0, 10).await.expect("Redis").is_empty());
    assert_eq!(flight.note.event.organization_id, chat.verified.organization_id);
    assert!(ChatRequest::parse(streamed().to_string().as_bytes()).is_ok());
    feed.done();
    response.text().await.expect("the rest");
    let redis = chat.stop().await;
    assert_eq!(read(&redis).await.expect("Redis").len(), 1);
}

/// billing-service is not needed for a request that the lease pays.
#[tokio::test]
async fn with_billing_away_requests_are_served_as_far_as_the_lease_reaches() {
    let chat = Chat::start().await;
    let cost = cost_of_one(&chat).await;
    chat.neighbors.billing_answers(500);
    chat.upstream.whole(200, ANSWER);
    chat.ask(&whole()).await.expect(200);
    let key = Shard::of(chat.verified.organization_id).key(&format!("lease:{}", chat.verified.organization_id));
    let mut connection = chat.redis.redis.connection();
    let () = redis::cmd("HSET").arg(key).arg("remaining").arg(cost - 1).query_async(&mut connection).await.expect("Redis");
    assert_eq!(chat.ask(&whole()).await.expect(503).header("retry-after"), "1");
}
