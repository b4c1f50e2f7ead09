//! What an organization's plan allows, and how fast a change of it is heard.

use std::time::Duration;

use contracts::entitlements::{BILLING_STREAM, Entitlements, EntitlementsChanged};
use futures::future::join_all;
use identity::OrganizationId;
use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::Answer;

use crate::harness::{Chat, whole};
use crate::neighbors::everything;
use crate::refusals::assert_shape;

const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;

/// What the organization of the test may do; each is newer than those before.
fn plan(chat: &Chat, change: impl FnOnce(&mut Entitlements)) {
    let before = chat.neighbors.entitlements(chat.verified.organization_id);
    let mut plan = Entitlements { version: before.version + 1, ..everything(chat.verified.organization_id) };
    change(&mut plan);
    chat.neighbors.entitle(plan);
}

fn only(models: &[&str]) -> impl FnOnce(&mut Entitlements) {
    let models = models.iter().map(ToString::to_string).collect();
    |plan| plan.models = Some(models)
}

/// What billing-service's outbox publishes after a change.
async fn push(chat: &Chat, organization_id: Option<OrganizationId>) {
    let payload = serde_json::to_string(&EntitlementsChanged { organization_id }).expect("JSON");
    let fields = [("kind", EntitlementsChanged::KIND), ("payload", payload.as_str())];
    chassis::streams::publish(&chat.redis.redis, BILLING_STREAM, &fields, None).await.expect("Redis");
}

async fn asks_for(chat: &Chat, model: &str) -> Answer {
    let mut body = whole();
    body["model"] = model.into();
    chat.ask(&body).await
}

async fn listed(chat: &Chat) -> Vec<String> {
    let list = chat.client().get("/v1/models").await.expect(200).json;
    list["data"].as_array().expect("a list").iter().map(|model| model["id"].as_str().expect("an id").to_owned()).collect()
}

fn away(answer: &Answer) {
    assert_shape(answer, 503, "server_error", "service_unavailable", &Value::Null);
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn a_model_that_the_plan_does_not_have_is_a_403_and_is_not_listed() {
    let chat = Chat::start().await;
    plan(&chat, only(&["sim-small", "gone"]));
    chat.upstream.whole(200, ANSWER);
    asks_for(&chat, "sim-small").await.expect(200);
    assert_shape(&asks_for(&chat, "sim-large").await, 403, "invalid_request_error", "model_not_in_plan", &json!("model"));
    let one = chat.client().get("/v1/models/sim-large").await;
    assert_shape(&one, 403, "invalid_request_error", "model_not_in_plan", &json!("model"));
    chat.client().get("/v1/models/sim-small").await.expect(200);
    assert_eq!(listed(&chat).await, ["sim-small"], "what is not offered is not sold either");
    assert_eq!((chat.upstream.seen().len(), chat.admitted().await), (1, 1), "what is refused takes nothing");
    assert_eq!(chat.neighbors.plans_asked(chat.verified.organization_id), 1, "the rest was known");
}

#[tokio::test]
async fn a_model_that_is_not_offered_is_a_404_whatever_the_plan_has() {
    let chat = Chat::start().await;
    plan(&chat, only(&["gone"]));
    assert_shape(&asks_for(&chat, "gone").await, 404, "invalid_request_error", "model_not_found", &json!("model"));
    assert_eq!(listed(&chat).await, Vec::<String>::new());
}

/// Down and up again, each with one message; nobody waits for a copy to become old.
#[tokio::test]
async fn a_change_of_the_plan_counts_from_its_message_on() {
    let chat = Chat::start().await;
    let organization = chat.verified.organization_id;
    for _ in 0..2 {
        chat.upstream.whole(200, ANSWER);
        asks_for(&chat, "sim-large").await.expect(200);
    }
    plan(&chat, only(&["sim-small"]));
    chat.upstream.whole(200, ANSWER);
    asks_for(&chat, "sim-large").await.expect(200);
    assert_eq!(chat.neighbors.plans_asked(organization), 1, "without the message the copy serves");
    push(&chat, Some(organization)).await;
    eventually("the message is heard", || async { (listed(&chat).await == ["sim-small"]).then_some(()) }).await;
    asks_for(&chat, "sim-large").await.expect(403);
    plan(&chat, |_| {});
    push(&chat, Some(organization)).await;
    eventually("the message is heard", || async { (listed(&chat).await.len() > 1).then_some(()) }).await;
    chat.upstream.whole(200, ANSWER);
    asks_for(&chat, "sim-large").await.expect(200);
    assert_eq!(chat.neighbors.plans_asked(organization), 3, "once for each message");
}

#[tokio::test]
async fn a_new_catalogue_is_news_for_everybody() {
    let chat = Chat::start().await;
    assert!(listed(&chat).await.len() > 1);
    plan(&chat, only(&["sim-small"]));
    push(&chat, None).await;
    eventually("the message is heard", || async { (listed(&chat).await == ["sim-small"]).then_some(()) }).await;
}

/// A message that nobody can read may be about anybody.
#[tokio::test]
async fn a_change_that_cannot_be_read_is_a_change_of_all() {
    let chat = Chat::start().await;
    assert!(listed(&chat).await.len() > 1);
    plan(&chat, only(&["sim-small"]));
    let fields = [("kind", EntitlementsChanged::KIND), ("payload", "{\"organization_id\":7}")];
    chassis::streams::publish(&chat.redis.redis, BILLING_STREAM, &fields, None).await.expect("Redis");
    eventually("the message is heard", || async { (listed(&chat).await == ["sim-small"]).then_some(()) }).await;
}

/// Messages come late and twice; what they say is only that it must be asked again.
#[tokio::test]
async fn an_older_message_or_an_older_answer_after_a_newer_one_changes_nothing() {
    let chat = Chat::start().await;
    let organization = chat.verified.organization_id;
    plan(&chat, only(&["sim-large"]));
    let older = chat.neighbors.entitlements(organization);
    plan(&chat, only(&["sim-small"]));
    assert_eq!(listed(&chat).await, ["sim-small"]);
    // The message of the change before.
    push(&chat, Some(organization)).await;
    eventually("it is heard", || async {
        assert_eq!(listed(&chat).await, ["sim-small"]);
        (chat.neighbors.plans_asked(organization) == 2).then_some(())
    })
    .await;
    // An answer of before the change, by a copy of the database that lags behind: in passing it is ignored...
    chat.neighbors.entitle(older.clone());
    chat.time.advance(Duration::from_mins(1));
    assert_eq!(listed(&chat).await, ["sim-small"]);
    eventually("it is asked in passing", || async { (chat.neighbors.plans_asked(organization) == 3).then_some(()) }).await;
    assert_eq!(listed(&chat).await, ["sim-small"]);
    // ... and when there is nothing else, it is nothing.
    push(&chat, Some(organization)).await;
    let refused = eventually("it is heard", || async { Some(chat.client().get("/v1/models").await).filter(|answer| answer.status != 200) });
    away(&refused.await);
    away(&asks_for(&chat, "sim-large").await);
    assert!(chat.upstream.seen().is_empty());
}

/// The question is under way when the change happens: its answer is of before, and must not outlive the message.
#[tokio::test]
async fn an_answer_that_was_under_way_when_the_message_came_is_not_kept() {
    let chat = Chat::start().await;
    let organization = chat.verified.organization_id;
    let held = chat.neighbors.hold_plans().await;
    let slow = async { listed(&chat).await };
    let change = async {
        eventually("the question is under way", || async { (chat.neighbors.plans_asked(organization) == 1).then_some(()) }).await;
        plan(&chat, only(&["sim-small"]));
        push(&chat, Some(organization)).await;
        // Whoever comes after the message asks anew instead of waiting for the first question.
        let asked_anew = async {
            eventually("a second question", || async {
                let asking = chat.client();
                let _ = tokio::time::timeout(Duration::from_millis(20), asking.get("/v1/models")).await;
                (chat.neighbors.plans_asked(organization) == 2).then_some(())
            })
            .await;
        };
        asked_anew.await;
        drop(held);
    };
    let (before, ()) = tokio::join!(slow, change);
    assert!(before.len() > 1, "who asked before the change is told what was so then");
    assert_eq!(listed(&chat).await, ["sim-small"]);
    asks_for(&chat, "sim-large").await.expect(403);
}

#[tokio::test]
async fn of_many_requests_of_a_new_organization_one_asks_billing() {
    let chat = Chat::start().await;
    plan(&chat, only(&["sim-small"]));
    let held = chat.neighbors.hold_plans().await;
    let asking = join_all((0..32).map(|_| asks_for(&chat, "sim-large")));
    let release = async {
        eventually("the question", || async { (chat.neighbors.plans_asked(chat.verified.organization_id) == 1).then_some(()) }).await;
        drop(held);
    };
    let (answers, ()) = tokio::join!(asking, release);
    assert!(answers.iter().all(|answer| answer.status == 403), "{answers:?}");
    assert_eq!(chat.neighbors.plans_asked(chat.verified.organization_id), 1);
}

/// [trap 9] Nothing is known of the organization: nothing is given, also not for free models.
#[tokio::test]
async fn with_billing_away_and_nothing_known_the_answer_is_a_503_and_not_everything() {
    let chat = Chat::start().await;
    chat.neighbors.billing_answers(503);
    away(&chat.ask(&whole()).await);
    away(&chat.client().get("/v1/models").await);
    chat.neighbors.billing_answers(0);
    chat.upstream.whole(200, ANSWER);
    chat.ask(&whole()).await.expect(200);
}

/// `CHAT_ENTITLEMENTS_OLDEST_MS`, ten minutes unless it is told otherwise.
#[tokio::test]
async fn with_billing_away_what_is_known_serves_until_it_is_too_old_and_not_a_moment_longer() {
    let chat = Chat::start().await;
    let organization = chat.verified.organization_id;
    plan(&chat, only(&["sim-small"]));
    assert_eq!(listed(&chat).await, ["sim-small"]);
    chat.neighbors.billing_answers(503);
    chat.time.advance(Duration::from_mins(10) - Duration::from_micros(1));
    assert_eq!(listed(&chat).await, ["sim-small"]);
    chat.client().get("/v1/models/sim-large").await.expect(403);
    eventually("it is asked in passing", || async { (chat.neighbors.plans_asked(organization) == 2).then_some(()) }).await;
    chat.time.advance(Duration::from_micros(1));
    away(&chat.client().get("/v1/models").await);
    away(&chat.ask(&whole()).await);
    chat.neighbors.billing_answers(0);
    assert_eq!(listed(&chat).await, ["sim-small"]);
}

/// What is known to be old serves nobody: it may be what somebody took away.
#[tokio::test]
async fn with_billing_away_a_plan_that_has_changed_does_not_serve_any_more() {
    let chat = Chat::start().await;
    assert!(listed(&chat).await.len() > 1);
    chat.neighbors.billing_answers(503);
    push(&chat, Some(chat.verified.organization_id)).await;
    let refused =
        eventually("the message is heard", || async { Some(chat.client().get("/v1/models").await).filter(|answer| answer.status != 200) });
    away(&refused.await);
}

/// The second line of defence, should a message be lost: after a minute a copy is read again, and no request waits for it.
#[tokio::test]
async fn a_change_without_a_message_is_found_after_a_minute_beside_the_requests() {
    let chat = Chat::start().await;
    assert!(listed(&chat).await.len() > 1);
    plan(&chat, only(&["sim-small"]));
    chat.time.advance(Duration::from_mins(1) - Duration::from_micros(1));
    assert!(listed(&chat).await.len() > 1);
    assert_eq!(chat.neighbors.plans_asked(chat.verified.organization_id), 1);
    chat.time.advance(Duration::from_micros(1));
    let held = chat.neighbors.hold_plans().await;
    assert!(listed(&chat).await.len() > 1, "it does not wait");
    drop(held);
    eventually("the copy is read again", || async { (listed(&chat).await == ["sim-small"]).then_some(()) }).await;
    assert_eq!(chat.neighbors.plans_asked(chat.verified.organization_id), 2);
}
