//! The limits of the plan and of budgets, exactly, on any number of replicas.

use std::net::SocketAddr;
use std::time::Duration;

use admission::Limit;
use contracts::entitlements::{LimitPeriod, LimitScope, SpendLimit, Spent};
use futures::future::join_all;
use identity::{ApiKeyId, OrganizationId, VerifiedApiKey};
use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::Answer;

use crate::harness::{Chat, PROMPT_TOKENS, streamed, whole};
use crate::neighbors::{PORTION, everything};
use crate::refusals::assert_shape;
use crate::upstream::Feed;

/// Nine tokens in and one out: 11 micro-units.
const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
const SPENT: i64 = 11;
const MONTH: Duration = Duration::from_hours(31 * 24);

fn limit(scope: LimitScope, id: &str, period: LimitPeriod, limit_micros: i64) -> SpendLimit {
    SpendLimit { scope, id: id.to_owned(), period, limit_micros, currency: "USD".to_owned(), spent: None }
}

fn of_the_organization(period: LimitPeriod, micros: i64) -> SpendLimit {
    limit(LimitScope::Organization, "", period, micros)
}

/// Before the first request: there is no copy to drop.
fn limited(chat: &Chat, requests_per_minute: Option<u32>, spend_limits: Vec<SpendLimit>) {
    let plan = everything(chat.verified.organization_id);
    chat.neighbors.entitle(contracts::entitlements::Entitlements { requests_per_minute, spend_limits, ..plan });
}

/// What is taken for [`whole`] and [`streamed`]: all that they can cost.
async fn cost() -> i64 {
    let chat = Chat::start().await;
    asks(&chat, &whole()).await.expect(200);
    settled(&chat, 1).await;
    chat.settlements().await[0].0.reserved_micros
}

async fn settled(chat: &Chat, count: usize) {
    eventually("the settlements", || async { (chat.settlements().await.len() == count).then_some(()) }).await;
}

/// A request that is answered if it is let through.
async fn asks(chat: &Chat, body: &Value) -> Answer {
    let seen = chat.upstream.seen().len();
    chat.upstream.whole(200, ANSWER);
    let answer = chat.ask(body).await;
    if chat.upstream.seen().len() == seen {
        chat.upstream.forget();
    }
    answer
}

/// Streams that stay open, each worth its worst case.
async fn open(chat: &Chat, count: usize) -> Vec<(Feed, reqwest::Response)> {
    let mut open = Vec::new();
    for _ in 0..count {
        let feed = chat.upstream.stream();
        feed.text("hello");
        let response = chat.stream(&streamed()).await;
        assert_eq!(response.status(), 200);
        open.push((feed, response));
    }
    open
}

/// So many at once, half on each replica; nothing is settled before all are answered.
async fn at_once(chat: &Chat, replicas: [SocketAddr; 2], count: usize) -> Vec<(u16, Value, String)> {
    let client = chassis::http::client::builder().build().expect("a client");
    let answers = (0..count).map(|number| {
        let url = format!("http://{}/v1/chat/completions", replicas[number % 2]);
        client.post(url).bearer_auth(&chat.key).body(streamed().to_string()).send()
    });
    let (mut told, mut open) = (Vec::new(), Vec::new());
    for answer in join_all(answers).await {
        let answer = answer.expect("an answer");
        let retry_after = answer.headers().get("retry-after").map_or_else(String::new, |after| after.to_str().expect("text").to_owned());
        let status = answer.status().as_u16();
        if status == 200 {
            told.push((status, Value::Null, retry_after));
            open.push(answer);
        } else {
            let body = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON");
            told.push((status, body, retry_after));
        }
    }
    told
}

fn feeds(chat: &Chat, count: usize) -> Vec<Feed> {
    let feeds: Vec<Feed> = (0..count).map(|_| chat.upstream.stream()).collect();
    for feed in &feeds {
        feed.text("hello");
    }
    feeds
}

/// [B-39]
#[tokio::test(flavor = "multi_thread")]
async fn of_64_requests_at_once_on_two_replicas_exactly_as_many_pass_as_the_plan_has_in_a_minute() {
    const K: usize = 13;
    let chat = Chat::start().await;
    limited(&chat, Some(13), Vec::new());
    let replicas = [chat.address, chat.replica().await];
    let feeds = feeds(&chat, K);
    let answers = at_once(&chat, replicas, 64).await;
    assert_eq!(answers.iter().filter(|(status, ..)| *status == 200).count(), K);
    for (status, body, retry_after) in answers.iter().filter(|(status, ..)| *status != 200) {
        assert_eq!((*status, &body["error"]["code"], &body["error"]["type"]), (429, &json!("rate_limit_exceeded"), &json!("requests")));
        assert!((1..=60).contains(&retry_after.parse::<u64>().expect("seconds")), "{retry_after}");
    }
    assert_eq!(chat.admitted().await, K, "what is refused takes nothing");
    drop(feeds);
}

/// [B-38] [B-39] The worst case counts while a request is in flight: no number of them at once can spend more.
#[tokio::test(flavor = "multi_thread")]
async fn of_64_requests_at_once_on_two_replicas_exactly_as_many_pass_as_the_budget_covers() {
    const K: i64 = 7;
    let cost = cost().await;
    let chat = Chat::start().await;
    limited(&chat, None, vec![of_the_organization(LimitPeriod::Month, K * cost + cost - 1)]);
    let replicas = [chat.address, chat.replica().await];
    let feeds = feeds(&chat, 7);
    let answers = at_once(&chat, replicas, 64).await;
    assert_eq!(answers.iter().filter(|(status, ..)| *status == 200).count(), 7);
    for (status, body, retry_after) in answers.iter().filter(|(status, ..)| *status != 200) {
        assert_eq!((*status, &body["error"]["code"]), (402, &json!("spend_limit_exceeded")), "{body}");
        // The test's clock stands at the first instant of a month.
        assert_eq!(*retry_after, MONTH.as_secs().to_string());
    }
    // Each replica may have had the lease filled.
    assert_eq!((chat.admitted().await, chat.remaining().await % PORTION), (7, PORTION - K * cost), "what is refused takes nothing");
    drop(feeds);
}

/// [B-40]
#[tokio::test]
async fn a_budget_counts_what_was_used_once_a_request_is_over() {
    let cost = cost().await;
    let chat = Chat::start().await;
    limited(&chat, None, vec![of_the_organization(LimitPeriod::Day, cost + 3 * SPENT)]);
    for answered in 1..=4 {
        asks(&chat, &whole()).await.expect(200);
        settled(&chat, answered).await;
    }
    let refused = asks(&chat, &whole()).await;
    assert_shape(&refused, 402, "insufficient_quota", "spend_limit_exceeded", &Value::Null);
    assert_eq!(refused.header("retry-after"), (24 * 60 * 60).to_string());
    assert!(refused.json["error"]["message"].as_str().expect("a text").contains("your organization in a day"), "{}", refused.text);
    // What was spent is below the limit, and stays there: that it refuses is noted for whoever tells of it.
    let since = testkit::clock().0.now().timestamp();
    let key = Limit::spend_key(chat.verified.organization_id, LimitScope::Organization, "", LimitPeriod::Day, since);
    let limits = [(key.clone(), cost + 3 * SPENT), (key, cost + 3 * SPENT + 1)];
    let have_refused = async || chat.admissions.have_refused(&limits).await.expect("Redis");
    // A higher limit has refused nobody.
    eventually("the note", || async { (have_refused().await == [true, false]).then_some(()) }).await;
}

#[tokio::test]
async fn a_budget_of_a_minute_is_a_429_until_the_next_and_one_of_a_day_a_402_until_the_next_day() {
    let cost = cost().await;
    for (period, status) in [(LimitPeriod::Minute, 429), (LimitPeriod::Day, 402), (LimitPeriod::Month, 402)] {
        let chat = Chat::start().await;
        chat.time.set("2029-12-31T23:59:59Z".parse().expect("an instant"));
        limited(&chat, None, vec![of_the_organization(period, cost)]);
        let open = open(&chat, 1).await;
        let refused = asks(&chat, &whole()).await;
        assert_shape(&refused, status, "insufficient_quota", "spend_limit_exceeded", &Value::Null);
        assert_eq!(refused.header("retry-after"), "1");
        chat.time.advance(Duration::from_secs(1));
        asks(&chat, &whole()).await.expect(200);
        drop(open);
    }
}

#[tokio::test]
async fn a_budget_of_a_key_a_model_or_a_tag_counts_for_it_alone() {
    let cost = cost().await;
    let mut chat = Chat::start().await;
    let (clock, random) = (chassis::Clock::system(), chassis::Random::system());
    let second = VerifiedApiKey { api_key_id: ApiKeyId::new(&clock, &random), ..chat.verified.clone() };
    let stranger = VerifiedApiKey { organization_id: OrganizationId::new(&clock, &random), ..second.clone() };
    limited(
        &chat,
        None,
        vec![
            limit(LimitScope::ApiKey, &chat.verified.api_key_id.to_string(), LimitPeriod::Month, 2 * cost),
            limit(LimitScope::Model, "sim-small", LimitPeriod::Month, 3 * cost),
            limit(LimitScope::Tag, "a, b", LimitPeriod::Month, 0),
            limit(LimitScope::Tag, "night", LimitPeriod::Month, 0),
            limit(LimitScope::Tag, "day", LimitPeriod::Month, 100 * cost),
        ],
    );
    let (second, stranger) = (chat.new_key(second), chat.new_key(stranger));
    let asks_as = async |chat: &Chat, tags: &str| -> Answer {
        let seen = chat.upstream.seen().len();
        chat.upstream.whole(200, ANSWER);
        let answer = chat.client().header("x-trivet-tags", tags).post("/v1/chat/completions", &whole()).await;
        if chat.upstream.seen().len() == seen {
            chat.upstream.forget();
        }
        answer
    };
    let refused = asks_as(&chat, "day, night").await;
    assert_shape(&refused, 402, "insufficient_quota", "spend_limit_exceeded", &Value::Null);
    assert!(refused.text.contains("a tag of this request"), "{}", refused.text);
    let mut all = open(&chat, 2).await;
    let refused = asks_as(&chat, "day, a, b").await;
    assert!(refused.status == 402 && refused.text.contains("this API key"), "{}", refused.text);
    chat.key = second;
    all.extend(open(&chat, 1).await);
    let refused = asks_as(&chat, "").await;
    assert!(refused.status == 402 && refused.text.contains("this model"), "{}", refused.text);
    let mut other = whole();
    other["model"] = "sim-large".into();
    asks(&chat, &other).await.expect(200);
    chat.key = stranger;
    asks_as(&chat, "night").await.expect(200);
    assert_eq!(all.len(), 3);
}

#[tokio::test]
async fn the_settlement_of_a_request_says_what_it_was_tagged_with() {
    let chat = Chat::start().await;
    chat.upstream.whole(200, ANSWER);
    chat.client().header("x-trivet-tags", "night, ci").post("/v1/chat/completions", &whole()).await.expect(200);
    assert_eq!(chat.settled().await.tags, ["ci", "night"].map(str::to_owned).into());
}

#[tokio::test]
async fn tags_that_cannot_be_read_are_refused_and_not_left_out() {
    let chat = Chat::start().await;
    let tags = chat.client().header("x-trivet-tags", "1,2,3,4,5,6,7,8,9");
    let refused = tags.post("/v1/chat/completions", &whole()).await;
    assert_shape(&refused, 400, "invalid_request_error", "invalid_value", &json!("X-Trivet-Tags"));
    assert!(chat.upstream.seen().is_empty() && chat.admitted().await == 0);
}

#[tokio::test]
async fn of_several_budgets_for_the_same_the_lowest_counts_and_each_request_once() {
    let cost = cost().await;
    let chat = Chat::start().await;
    let euros = SpendLimit { currency: "EUR".into(), ..of_the_organization(LimitPeriod::Month, 0) };
    let limits = [3 * cost, 2 * cost, 5 * cost].map(|micros| of_the_organization(LimitPeriod::Month, micros));
    limited(&chat, None, limits.into_iter().chain([euros]).collect());
    let open = open(&chat, 2).await;
    asks(&chat, &whole()).await.expect(402);
    drop(open);
}

/// A budget that is new, and any budget after Redis was lost, begins with what billing-service knows of its period.
#[tokio::test]
async fn a_budget_begins_with_what_was_spent_before_it_counted() {
    let cost = cost().await;
    let since = |text: &str| text.parse().expect("an instant");
    let spent = |text, micros| Some(Spent { since: since(text), micros });
    for (spent, status) in [
        (None, 200),
        (spent("2030-01-01T00:00:00Z", 1), 200),
        (spent("2030-01-01T00:00:00Z", 2), 402),
        // Of a period that is over.
        (spent("2029-12-01T00:00:00Z", 2), 200),
    ] {
        let chat = Chat::start().await;
        limited(&chat, None, vec![SpendLimit { spent, ..of_the_organization(LimitPeriod::Month, cost + 1) }]);
        asks(&chat, &whole()).await.expect(status);
    }
}

/// As it is when a budget was ended and made again: its counter knows only its own time.
#[tokio::test]
async fn what_was_spent_where_nobody_counted_is_found_when_the_plan_is_read_again() {
    let cost = cost().await;
    let chat = Chat::start().await;
    let budget = of_the_organization(LimitPeriod::Month, 2 * cost);
    limited(&chat, None, vec![budget.clone()]);
    asks(&chat, &whole()).await.expect(200);
    settled(&chat, 1).await;
    let spent = Some(Spent { since: "2030-01-01T00:00:00Z".parse().expect("an instant"), micros: cost + 1 });
    limited(&chat, None, vec![SpendLimit { spent, ..budget }]);
    asks(&chat, &whole()).await.expect(200);
    settled(&chat, 2).await;
    chat.time.advance(Duration::from_mins(1));
    eventually("the plan is read again, and its budget is used up", || async {
        Some(asks(&chat, &whole()).await).filter(|answer| answer.status == 402)
    })
    .await;
}

/// Only the counters: the lease is lost with them, which is another test.
#[tokio::test]
async fn after_redis_lost_its_counter_a_budget_goes_on_with_what_was_posted() {
    let cost = cost().await;
    let chat = Chat::start().await;
    let spent = Some(Spent { since: "2030-01-01T00:00:00Z".parse().expect("an instant"), micros: cost });
    limited(&chat, None, vec![SpendLimit { spent, ..of_the_organization(LimitPeriod::Month, 3 * cost - 1) }]);
    let before = open(&chat, 1).await;
    asks(&chat, &whole()).await.expect(402);
    let keys: Vec<String> = redis::cmd("KEYS").arg("*limit*").query_async(&mut chat.redis.redis.connection()).await.expect("Redis");
    let () = redis::cmd("DEL").arg(&keys).query_async(&mut chat.redis.redis.connection()).await.expect("Redis");
    // What was in flight is forgotten, and what was posted is not: one more fits, and not two, as from zero.
    let after = open(&chat, 1).await;
    asks(&chat, &whole()).await.expect(402);
    drop((before, after));
}

#[tokio::test]
async fn the_plans_requests_count_for_all_keys_and_ones_own_limit_still_counts() {
    let mut chat = Chat::start().await;
    let (clock, random) = (chassis::Clock::system(), chassis::Random::system());
    let second = VerifiedApiKey { api_key_id: ApiKeyId::new(&clock, &random), requests_per_minute: Some(1), ..chat.verified.clone() };
    limited(&chat, Some(3), Vec::new());
    let (first, second) = (chat.key.clone(), chat.new_key(second));
    for (key, status) in [(&second, 200), (&second, 429), (&first, 200), (&first, 200), (&first, 429)] {
        chat.key.clone_from(key);
        asks(&chat, &whole()).await.expect(status);
    }
}

#[tokio::test]
async fn the_plans_tokens_in_a_minute_count_for_all_keys() {
    let mut chat = Chat::start().await;
    let plan = everything(chat.verified.organization_id);
    // The longest answer of the model is in flight at most, and the prompt.
    chat.neighbors.entitle(contracts::entitlements::Entitlements { tokens_per_minute: Some(5000), ..plan });
    let opened = open(&chat, 1).await;
    for _ in 0..2 {
        let refused = asks(&chat, &whole()).await;
        assert_shape(&refused, 429, "tokens", "rate_limit_exceeded", &Value::Null);
        let other =
            VerifiedApiKey { api_key_id: ApiKeyId::new(&chassis::Clock::system(), &chassis::Random::system()), ..chat.verified.clone() };
        chat.key = chat.new_key(other);
    }
    assert_eq!(chat.admitted().await, 1, "what is refused takes nothing");
    drop(opened);
}

/// The most that a request can use while it is in flight, then what it used.
#[tokio::test]
async fn tokens_in_a_minute_are_a_limit_of_the_key_and_of_the_organization() {
    let cost = cost().await;
    // The longest answer of the model costs two micro-units a token, and the prompt one.
    let answer = 4096;
    let tokens = u32::try_from(cost - answer).expect("a few");
    for of_organization in [false, true] {
        let mut chat = Chat::with(|config| {
            let limits = &mut config.limits;
            *(if of_organization { &mut limits.organization_tokens_per_minute } else { &mut limits.tokens_per_minute }) = Some(tokens + 10);
        })
        .await;
        asks(&chat, &whole()).await.expect(200);
        settled(&chat, 1).await;
        let opened = open(&chat, 1).await;
        let refused = asks(&chat, &whole()).await;
        assert_shape(&refused, 429, "tokens", "rate_limit_exceeded", &Value::Null);
        assert_eq!((refused.header("retry-after"), PROMPT_TOKENS + 1), ("60", 10), "ten were used, and the rest is in flight");
        let other =
            VerifiedApiKey { api_key_id: ApiKeyId::new(&chassis::Clock::system(), &chassis::Random::system()), ..chat.verified.clone() };
        chat.key = chat.new_key(other);
        asks(&chat, &whole()).await.expect(if of_organization { 429 } else { 200 });
        drop(opened);
    }
}
