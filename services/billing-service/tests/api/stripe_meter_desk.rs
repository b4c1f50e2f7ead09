//! A shop that reports what is used to Stripe's meters, and what stands there.

use std::time::Duration;

use billing_service::stripe::meters::{plan, sender};
use billing_service::stripe::reconcile::{self, Report, Severity};
use chrono::{DateTime, TimeDelta, Utc};
use identity::{OrganizationId, Scopes};
use serde_json::{Value, json};
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;
use testkit::http::TestClient;

use super::metering::{event, meter, send};
use super::shop::Shop;
use super::wallet::run;

pub const EVENTS: &str = "/v1/billing/meter_events";
pub const PENDING: &str = "select count(*) from stripe_meter_reports where state = 'pending'";
pub const SENT: &str = "select count(*) from stripe_meter_reports where state = 'sent'";

/// A shop in which only the test plans; the service itself sends, as one more replica.
pub async fn open() -> Shop {
    quiet(Shop::open().await).await
}

pub async fn quiet(shop: Shop) -> Shop {
    shop.app.as_owner("update stripe_turns set next_at = '2100-01-01' where name like 'meters%'").await;
    shop
}

/// An organization with a meter of this aggregation.
pub async fn customer(shop: &Shop, aggregation: &str) -> (OrganizationId, TestClient) {
    let (organization, client) = shop.app.organization_with(Scopes::all());
    meter(&client, aggregation, &json!({})).await;
    shop.app.balance(&client).await;
    (organization, client)
}

/// A shop that keeps a meter of this aggregation at Stripe, and an organization that has it.
pub async fn metered(aggregation: &str) -> (Shop, OrganizationId, TestClient) {
    let shop = open().await;
    mirror(&shop, aggregation).await;
    let (organization, client) = customer(&shop, aggregation).await;
    (shop, organization, client)
}

/// Has the meters of a name, which is that of their aggregation, kept at Stripe as `jobs`, in tenths.
pub async fn mirror(shop: &Shop, aggregation: &str) {
    let line = ["stripe", "meters", "add", "jobs", "--meter", aggregation, "--aggregation", aggregation, "--decimals", "1"];
    run(&shop.app, &[&line[..], &["--actor", "ada", "--reason", "a test"]].concat()).await.unwrap();
}

/// Has something kept at Stripe under a name.
pub async fn keep(shop: &Shop, name: &str, of: &[&str]) {
    let by = ["--actor", "ada", "--reason", "a test"];
    run(&shop.app, &[&["stripe", "meters", "add", name], of, &by].concat()).await.unwrap();
}

pub async fn work(client: &TestClient, id: &str, at: DateTime<Utc>, seconds: &str) {
    let answer = send(client, &[event(id, at, &json!({"used": {"seconds": seconds}}))]).await.expect(200);
    assert_eq!(answer.json["results"][0]["status"], "accepted");
}

/// A second of work in each of so many hours.
pub async fn hourly(shop: &Shop, client: &TestClient, hours: usize) {
    for hour in 0..hours {
        work(client, &hour.to_string(), shop.app.clock.now(), "1").await;
        shop.pass(Duration::from_hours(1));
    }
}

/// Work in the first hour, which is reported when that hour is over.
pub async fn first_hour(shop: &Shop, client: &TestClient, seconds: &str) {
    work(client, "1", begin(), seconds).await;
    shop.pass(Duration::from_mins(75));
    report(shop).await;
}

/// What organizations used of chat in an hour.
pub async fn used(shop: &Shop, organization: OrganizationId, hour: DateTime<Utc>, micros: i64) {
    sqlx::query(
        "insert into usage_deltas (organization_id, hour, model, api_key_id, currency, requests, input_tokens, cached_input_tokens, cache_write_tokens,
           cache_write_1h_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, images, price_micros, cost_micros)
         values ($1, $2, 'm', '00000000-0000-0000-0000-000000000000', 'USD', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, $3, 0)",
    )
    .bind(organization.uuid())
    .bind(hour)
    .bind(micros)
    .execute(&shop.app.database.owner)
    .await
    .unwrap();
}

/// Sends what is due as one replica does, until nothing waits; pauses pass.
pub async fn deliver(shop: &Shop) {
    let state = shop.app.state();
    eventually("all is sent or set aside", || async {
        sender::flush(&state, state.stripe.as_ref().unwrap()).await.unwrap();
        let waits = shop.app.count(PENDING).await;
        if waits > 0 {
            shop.pass(Duration::from_secs(10));
        }
        (waits == 0).then_some(())
    })
    .await;
}

/// Sends what is due, once.
pub async fn flush(shop: &Shop) {
    let state = shop.app.state();
    sender::flush(&state, state.stripe.as_ref().unwrap()).await.unwrap();
}

pub async fn report(shop: &Shop) {
    plan::all(&shop.app.state()).await.unwrap();
    deliver(shop).await;
}

/// A report whose only try failed: with its effect, or without.
pub async fn in_doubt(shop: &Shop, kind: FaultKind) {
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(kind, "POST", EVENTS)]);
    plan::all(&shop.app.state()).await.unwrap();
    eventually("the first try", || async {
        flush(shop).await;
        let tried = "select count(*) from stripe_meter_reports where state = 'pending' and claimed_until is null and doubt_at is not null";
        (shop.app.count(tried).await == 1).then_some(())
    })
    .await;
    // The service itself shall not try it again before the test says so.
    shop.app.as_owner("update stripe_meter_reports set next_attempt_at = '2100-01-01' where state = 'pending'").await;
}

pub fn at_stripe(shop: &Shop) -> TestClient {
    TestClient::new(shop.stripe.address).bearer("sk_test_dashboard")
}

/// The id of a meter at Stripe.
pub async fn meter_at_stripe(shop: &Shop, event_name: &str) -> String {
    let meters = at_stripe(shop).get("/v1/billing/meters?limit=100").await.expect(200).json;
    let found = meters["data"].as_array().unwrap().iter().find(|meter| meter["event_name"] == event_name).unwrap();
    found["id"].as_str().unwrap().to_owned()
}

/// What Stripe's meter comes to in each hour of the first two days, by the number of the hour.
pub async fn sums(shop: &Shop, event_name: &str, organization: OrganizationId) -> Vec<(i64, i64)> {
    sums_since(shop, event_name, organization, begin()).await
}

pub async fn sums_since(shop: &Shop, event_name: &str, organization: OrganizationId, since: DateTime<Utc>) -> Vec<(i64, i64)> {
    let (meter, customer) = (meter_at_stripe(shop, event_name).await, shop.stripe_customer(organization).await);
    let start = since.timestamp();
    let path = format!(
        "/v1/billing/meters/{meter}/event_summaries?customer={customer}&start_time={start}&end_time={}&value_grouping_window=hour&limit=100",
        start + 48 * 3600
    );
    let answer = at_stripe(shop).get(&path).await.expect(200).json;
    let sum = |sum: &Value| ((sum["start_time"].as_i64().unwrap() - start) / 3600, sum["aggregated_value"].as_i64().unwrap());
    let mut sums: Vec<_> = answer["data"].as_array().unwrap().iter().map(sum).collect();
    sums.sort_unstable();
    sums
}

/// Stripe loses what was reported of an hour.
pub async fn lose(shop: &Shop, hour: DateTime<Utc>) {
    let lost = sqlx::query_scalar(
        "select identifier from stripe_meter_reports r join stripe_meters m on m.id = r.stripe_meter_id where hour = $1 and event_name = 'jobs'",
    );
    let lost: Vec<String> = lost.bind(hour).fetch_all(&shop.app.database.owner).await.unwrap();
    for identifier in &lost {
        let fields = [("event_name", "jobs"), ("type", "cancel"), ("cancel[identifier]", identifier.as_str())];
        shop.dashboard("/v1/billing/meter_event_adjustments", &fields).await;
    }
}

pub fn begin() -> DateTime<Utc> {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

pub fn hours(hours: i64) -> TimeDelta {
    TimeDelta::hours(hours)
}

pub async fn compare(shop: &Shop) -> Report {
    shop.pass(Duration::from_mins(20));
    let state = shop.app.state();
    reconcile::compare(&state, state.stripe.as_ref().unwrap(), reconcile::GRACE).await.unwrap()
}

/// What is not as it should be, by kind and what both sides say.
pub fn wrong(report: &Report) -> Vec<(&str, &str, &str)> {
    let of_meters = report.differences.iter().filter(|one| one.severity != Severity::Info && one.kind.starts_with("meter"));
    of_meters.map(|one| (one.kind, one.ours.as_str(), one.theirs.as_str())).collect()
}

/// Every error, by kind and what it is about.
pub fn errors(report: &Report) -> Vec<(&str, &str)> {
    let errors = report.differences.iter().filter(|one| one.severity == Severity::Error);
    errors.map(|one| (one.kind, one.object.as_str())).collect()
}
