//! What operators do with subscriptions: what the customer may, and end one at once; on record, and once under a key [B-78].

use std::time::Duration;

use billing_service::admin::{SCOPE_READ, SCOPE_WRITE};
use identity::OrganizationId;
use serde_json::{Value, json};
use testkit::http::TestClient;

use super::shop::Shop;

const MONTH: Duration = Duration::from_hours(32 * 24);

fn by() -> Value {
    json!({"actor": "grace", "reason": "ticket 4711"})
}

fn path(organization: OrganizationId) -> String {
    format!("/v1/admin/subscriptions/{organization}/changes")
}

fn console(shop: &Shop) -> TestClient {
    shop.app.service(&format!("{SCOPE_READ} {SCOPE_WRITE}"))
}

/// Somebody who paid for a plan, with the plan.
async fn subscribed(shop: &Shop) -> (OrganizationId, TestClient, Value) {
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    let plan = client.get("/v1/subscription").await.expect(200).json["data"][0].clone();
    (organization, client, plan)
}

/// [B-72] [B-78]
#[tokio::test]
async fn an_operator_ends_a_plan_at_once_and_once_with_who_and_why_and_nothing_more_is_charged() {
    let shop = Shop::open().await;
    let (ada, client, plan) = subscribed(&shop).await;
    let (credit, paid) = (shop.app.balance(&client).await, shop.at_stripe());
    let console = console(&shop).header("idempotency-key", "k");
    let end = json!({"by": by(), "subscription_id": plan["id"], "change": {"kind": "cancel"}, "at_once": true});
    let to = path(ada);
    let ended = futures::future::join_all((0..64).map(|_| console.post(&to, &end))).await;
    let ended: Vec<_> = ended.into_iter().map(|answer| answer.expect(200)).collect();
    let replayed = ended.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed")).count();
    assert!(replayed == 63 && ended.iter().all(|answer| answer.json == ended[0].json), "{replayed}");
    assert_eq!((&ended[0].json["status"], &ended[0].json["access"]), (&json!("canceled"), &json!("none")));
    assert_eq!(client.get("/v1/subscription").await.expect(200).json["data"], json!([]));
    let shown = console.get(&format!("/v1/admin/subscriptions/{ada}")).await.expect(200).json;
    assert_eq!((&shown["data"][0]["id"], shown["data"][0]["ended_at"].is_string()), (&plan["id"], true));
    let log = console.get(&format!("/v1/admin/audit?organization_id={ada}")).await.expect(200).json["data"].clone();
    assert_eq!(
        (log.as_array().unwrap().len(), &log[0]["action"], &log[0]["reason"]),
        (1, &json!("subscription.change"), &json!("ticket 4711"))
    );
    assert_eq!((&log[0]["before"]["status"], &log[0]["after"]["status"]), (&json!("active"), &json!("canceled")));
    shop.pass(MONTH);
    shop.settle().await;
    assert_eq!((shop.app.balance(&client).await, shop.at_stripe()), (credit, paid), "what was paid for is kept, and nothing more is paid");
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-78]
#[tokio::test]
async fn an_operator_changes_a_subscription_by_http_and_in_the_terminal_as_its_customer_may() {
    let shop = Shop::open().await;
    let (ada, client, plan) = subscribed(&shop).await;
    let (organization, id) = (ada.to_string(), plan["id"].as_str().unwrap().to_owned());
    let terminal = async |arguments: &[&str]| {
        let who = [&organization, id.as_str(), "--actor", "ada", "--reason", "asked for on the phone"];
        super::wallet::run(&shop.app, &[&["subscriptions"], arguments, &who].concat()).await
    };
    let is = async || client.get("/v1/subscription").await.expect(200).json["data"][0].clone();
    terminal(&["cancel"]).await.unwrap();
    assert_eq!((is().await["cancel_at_period_end"].clone(), is().await["status"].clone()), (json!(true), json!("active")));
    terminal(&["uncancel"]).await.unwrap();
    let refused = terminal(&["uncancel"]).await.unwrap_err().to_string();
    assert!(refused.starts_with("refused: ") && refused.len() > 20, "it says why: {refused}");
    terminal(&["seats", "--seats", "7"]).await.unwrap();
    terminal(&["pause"]).await.unwrap();
    let resume = json!({"by": by(), "subscription_id": id, "change": {"kind": "resume"}});
    console(&shop).post(&path(ada), &resume).await.expect(200);
    terminal(&["plan", "--plan", "pro", "--interval", "month", "--seats", "1"]).await.unwrap();
    let after = is().await;
    assert_eq!((&after["cancel_at_period_end"], &after["status"], &after["seats"]), (&json!(false), &json!("active"), &json!(7)));
    assert_eq!(after["pending"]["plan"], "pro");
    let actors: Vec<(String,)> = sqlx::query_as("select actor from subscription_changes order by revision desc limit 2")
        .fetch_all(&shop.app.database.owner)
        .await
        .unwrap();
    assert_eq!((actors[0].0.as_str(), actors[1].0.as_str()), ("ada", "grace via chat-service"));
    assert_eq!(shop.app.count("select count(*) from audit_log where action = 'subscription.change'").await, 6);
}

/// [B-51] [B-78]
#[tokio::test]
async fn what_an_operator_may_not_do_with_a_subscription_is_refused_and_leaves_no_row() {
    let shop = Shop::open().await;
    let (ada, client, plan) = subscribed(&shop).await;
    let (eve, _) = shop.customer();
    let console = console(&shop);
    let wish = |change: Value| json!({"by": by(), "subscription_id": plan["id"], "change": change});
    let changed = |mut body: Value, field: &str, value: Value| {
        body[field] = value;
        body
    };
    let cases = [
        (ada, changed(wish(json!({"kind": "pause"})), "at_once", json!(true)), 422, "at_once"),
        (ada, changed(wish(json!({"kind": "cancel"})), "by", json!({"actor": "grace", "reason": " "})), 422, "reason"),
        (ada, wish(json!({"kind": "coupon", "coupon": "none"})), 404, "not_found"),
        (ada, wish(json!({"kind": "uncancel"})), 409, "not_canceling"),
        (ada, wish(json!({"kind": "end"})), 422, "change"),
        (eve, wish(json!({"kind": "cancel"})), 404, "not_found"),
    ];
    for (organization, body, status, said) in cases {
        let refused = console.post(&path(organization), &body).await.expect(status);
        assert!(refused.text.contains(said), "{body}: {}", refused.text);
    }
    assert_eq!(client.get("/v1/subscription").await.expect(200).json["data"][0], plan);
    assert_eq!(shop.app.count("select count(*) from audit_log where action = 'subscription.change'").await, 0);
}
