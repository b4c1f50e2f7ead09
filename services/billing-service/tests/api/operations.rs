//! How the service says that it is well, and when it is not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use billing_service::admin::SCOPE_READ;
use billing_service::audit::Decision;
use billing_service::grants::{WalletChange, decide};
use billing_service::operations::{GAUGES, Line, Shown, Status, read, status};
use chassis::postgres::{connect, keep_running};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use redis::InfoDict;
use serde_json::json;
use testkit::eventually::eventually;
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::wallet::run;

async fn of(app: &App) -> Status {
    status(&app.state()).await.unwrap()
}

fn line<'s>(status: &'s Status, metric: &str, label: &str) -> &'s Line {
    status
        .lines
        .iter()
        .find(|line| line.metric == metric && line.label == label)
        .unwrap_or_else(|| panic!("no {metric} {label}: {status:?}"))
}

#[tokio::test]
async fn a_service_that_is_well_says_so_with_every_measure_and_ends_with_success() {
    let app = App::start().await;
    let found = of(&app).await;
    assert!(found.fine, "{found:?}");
    for gauge in GAUGES {
        assert!(found.lines.iter().any(|line| line.metric == gauge.name), "{} is not shown", gauge.name);
        assert!(found.table().contains(gauge.name));
    }
    let apart = line(&found, "billing_clock_difference_seconds", "").value;
    assert_eq!(apart, 0, "of the machine's clock, and not of the one that tests turn");
    run(&app, &["status"]).await.unwrap();
    run(&app, &["status", "--json"]).await.unwrap();
    let served = app.service(SCOPE_READ).get("/v1/admin/status").await.expect(200).json;
    assert_eq!((&served["fine"], served["lines"].as_array().unwrap().len()), (&json!(true), found.lines.len()));
}

#[tokio::test]
async fn what_lies_in_leases_in_flight_in_debt_and_in_the_books_of_today_is_measured() {
    let app = App::start().await;
    let (ada, client) = app.organization();
    app.balance(&client).await;
    let event = app.used(ada).await;
    let found = of(&app).await;
    assert_eq!((line(&found, "billing_leases", "open").value, line(&found, "billing_flights", "").value), (1, 1));
    let held = app.count("select sum(held_micros)::bigint from leases").await;
    assert_eq!(line(&found, "billing_lease_held_micros", "USD").value, held);
    assert_eq!(line(&found, "billing_lease_remaining_micros", "USD").value, held - super::gateway::RESERVED);
    let posted = billing_service::usage::Posted { event, taken: super::gateway::RESERVED, trace_id: None, sums: Vec::new() };
    billing_service::usage::post_one(&app.state(), posted).await.unwrap();
    let found = of(&app).await;
    let (price, cost) = (line(&found, "billing_revenue_today_micros", "USD").value, line(&found, "billing_cost_today_micros", "USD").value);
    assert_eq!((price, line(&found, "billing_margin_today_micros", "USD").value), (150, price - cost));
    let (state, change) = (app.state(), WalletChange::Adjust { amount: -9_000_000 });
    decide(&state, &Decision::new(&state, "ada", "a test", None), ada, &change).await.unwrap();
    let found = of(&app).await;
    assert_eq!(
        (line(&found, "billing_wallets_in_debt", "USD").value, line(&found, "billing_debt_micros", "USD").value),
        (1, app.debt(ada).await)
    );
    assert!(found.fine, "debt alone needs nobody: {found:?}");
}

#[tokio::test]
async fn each_thing_that_is_stuck_is_beyond_its_limit_names_its_entry_and_ends_with_failure() {
    let app = App::start().await;
    let (ada, _) = app.organization();
    let redis = &app.redis.redis;
    let dead = format!("{}:dead", contracts::Shard::of(ada).usage_stream());
    chassis::streams::publish(redis, &dead, &[("dead_reason", "x")], None).await.unwrap();
    app.as_owner(
        "insert into stripe_events (event_id, kind, livemode, payload, state, created_at, received_at)
           values ('evt_1', 'x', false, '{}', 'parked', '2030-01-01', '2030-01-01');
         insert into intents (id, kind, subject, idempotency_key, payload, next_attempt_at, created_at, parked_at)
           values (gen_random_uuid(), 'x', 'x', 'x', '{}', '2030-01-01', '2030-01-01', '2030-01-02');
         insert into usage_deltas (organization_id, hour, model, api_key_id, currency, requests, input_tokens, cached_input_tokens, cache_write_tokens,
           cache_write_1h_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, images, price_micros, cost_micros)
           values (gen_random_uuid(), '2030-01-01 00:00Z', 'm', gen_random_uuid(), 'USD', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 25);
         insert into reconciliation_runs values (gen_random_uuid(), now(), now(), 1, 1, 1, 1, 1, 0, 1, 2)",
    )
    .await;
    let found = of(&app).await;
    assert!(!found.fine);
    let expected = [
        ("stream_set_aside_messages", contracts::Shard::of(ada).usage_stream(), 1),
        ("billing_stripe_events_set_aside", String::new(), 1),
        ("billing_intents_set_aside", String::new(), 1),
        ("billing_margin_today_micros", "USD".to_owned(), -15),
        ("billing_reconciliation_differences", "error".to_owned(), 2),
    ];
    for (metric, label, value) in expected {
        let line = line(&found, metric, &label);
        assert_eq!((line.value, line.beyond), (value, true), "{line:?}");
    }
    let told = run(&app, &["status"]).await.unwrap_err().to_string();
    assert!(told.contains("docs/operations/RUNBOOK.md#billing_margin_today_micros"), "{told}");
    assert_eq!(told.matches("RUNBOOK").count(), 5, "{told}");
}

/// What waits too long, with and without Stripe: where nothing is ever sent, nothing waits.
#[tokio::test]
async fn what_waits_is_beyond_its_limit_only_when_it_is_late() {
    let app = App::start().await;
    app.as_owner(
        "insert into intents (id, kind, subject, idempotency_key, payload, next_attempt_at, created_at)
           values (gen_random_uuid(), 'x', 'x', 'x', '{}', '2040-01-01', timestamptz '2030-01-01 00:00Z' - interval '20 minutes')",
    )
    .await;
    let found = of(&app).await;
    assert_eq!((line(&found, "billing_intents_unsent", "").value, line(&found, "billing_intent_age_seconds", "").value), (1, 0));
    let mut state = app.state();
    let mut config = (*state.config).clone();
    config.stripe.secret_key = Some("sk_test_x".to_owned().into());
    state.config = std::sync::Arc::new(config);
    let age = status(&state).await.unwrap();
    assert!(line(&age, "billing_intent_age_seconds", "").value >= 1200 && !age.fine, "{age:?}");
}

#[tokio::test]
async fn the_measures_are_on_the_metrics_page_with_what_they_mean() {
    // As `serve` does: there is a recorder before there is anything to record.
    let _ = chassis::telemetry::render_metrics();
    let app = App::start().await;
    let text = eventually("the gauges are set", || async {
        let text = app.private.get("/metrics").await.expect(200).text;
        text.contains("billing_ledger_unsealed").then_some(text)
    })
    .await;
    assert!(text.contains("# HELP billing_ledger_unsealed Transactions that are under no seal yet."), "{text}");
    assert!(text.contains("# TYPE billing_ledger_unsealed gauge"), "{text}");
}

/// The gauges that one test sets: those of the process are all tests'.
#[derive(Debug, Default)]
struct Gauges(Mutex<HashMap<String, Arc<AtomicU64>>>);

impl Gauges {
    /// The value of a gauge that was set, by its name, or its name and label.
    fn get(&self, name: &str) -> Option<f64> {
        self.0.lock().unwrap().get(name).map(|value| f64::from_bits(value.load(Ordering::SeqCst)))
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}

    fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}

    fn describe_histogram(&self, _key: KeyName, _unit: Option<Unit>, _description: SharedString) {}

    fn register_counter(&self, _key: &Key, _metadata: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        let name = key.labels().fold(key.name().to_owned(), |name, label| format!("{name} {}", label.value()));
        Gauge::from_arc(Arc::clone(self.0.lock().unwrap().entry(name).or_default()))
    }

    fn register_histogram(&self, _key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_unknown_and_why_and_all_else_is_known() {
    let mut app = App::start().await;
    let away = connect(&app.database.config, "test").unwrap();
    away.close().await;
    let without_postgres = app.state_with(away);
    let unknown = |status: &Status| status.unknown.iter().map(|unknown| unknown.part).collect::<Vec<_>>();
    let found = status(&without_postgres).await.unwrap();
    assert_eq!(unknown(&found), ["Postgres", "leases", "clock"], "{found:?}");
    assert_eq!((found.fine, line(&found, "billing_flights", "").value), (false, 0));
    app.redis.kill();
    let found = of(&app).await;
    assert_eq!(unknown(&found), ["streams", "memory of Redis"], "{found:?}");
    assert!(!found.fine && found.unknown.iter().all(|unknown| unknown.why.starts_with("Redis failed: ")), "{found:?}");
    assert_eq!(line(&found, "billing_ledger_unsealed", "").value, 0);
    assert!(found.lines.iter().all(|line| line.metric != "stream_lag_messages"), "{found:?}");
    let table = found.table();
    assert!(table.lines().any(|line| line.starts_with("stream_lag_messages ") && line.ends_with("UNKNOWN")), "{table}");
    let told = run(&app, &["status"]).await.unwrap_err().to_string();
    assert!(told.contains("not known: streams (Redis failed: ") && !told.contains("RUNBOOK"), "{told}");
    let served = app.service(SCOPE_READ).get("/v1/admin/status").await.expect(200).json;
    assert_eq!((&served["fine"], &served["unknown"][0]["part"]), (&json!(false), &json!("streams")));
    let nothing = status(&without_postgres).await.unwrap_err();
    assert!(nothing.is_outage(), "{nothing:?}");
}

#[tokio::test]
async fn a_gauge_that_cannot_be_read_is_no_number_until_it_can_and_the_others_go_on() {
    let gauges = Gauges::default();
    let _recorded = metrics::set_default_local_recorder(&gauges);
    let mut app = App::start().await;
    // Its next time is in half a minute.
    eventually("the service has set them itself", || async { gauges.get("billing_ledger_unsealed") }).await;
    let (state, shown) = (app.state(), Shown::default());
    let set_aside = format!("stream_set_aside_messages {}", contracts::events::AUTH_STREAM);
    let names = ["billing_flights", set_aside.as_str(), "billing_stripe_events_set_aside"];
    let measured = || names.map(|name| gauges.get(name).unwrap().to_string());
    shown.refresh(&state).await.unwrap();
    assert_eq!(measured(), ["0", "0", "0"]);
    app.redis.kill();
    app.as_owner(
        "insert into stripe_events (event_id, kind, livemode, payload, state, created_at, received_at)
           values ('evt_1', 'x', false, '{}', 'parked', '2030-01-01', '2030-01-01')",
    )
    .await;
    let told = shown.refresh(&state).await.unwrap_err().to_string();
    assert!(told.contains("streams: Redis failed") && !told.contains("Postgres"), "{told}");
    assert_eq!(measured(), ["NaN", "NaN", "1"]);
    app.redis.restart().await.unwrap();
    shown.refresh(&state).await.unwrap();
    assert_eq!(measured(), ["0", "0", "1"]);
}

#[tokio::test]
async fn redis_that_is_nearly_full_is_beyond_its_limit_and_without_a_limit_there_is_nothing_to_measure() {
    let app = App::start().await;
    let name = "redis_memory_used_percent";
    let mut connection = app.redis.redis.connection();
    let percent = async || read(&app.state()).await.unwrap().iter().find(|reading| reading.gauge.name == name).map(|reading| reading.value);
    assert_eq!(percent().await, None);
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1gb"]).query_async(&mut connection).await.unwrap();
    assert!(percent().await.is_some_and(|percent| percent < 10));
    run(&app, &["status"]).await.unwrap();
    let info: InfoDict = redis::cmd("INFO").arg("memory").query_async(&mut connection).await.unwrap();
    let used: String = info.get("used_memory").unwrap();
    let () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", used.as_str()]).query_async(&mut connection).await.unwrap();
    let found = of(&app).await;
    assert!(line(&found, name, "").beyond && !found.fine, "{found:?}");
    let told = run(&app, &["status"]).await.unwrap_err().to_string();
    assert!(told.contains("docs/operations/RUNBOOK.md#redis_memory_used_percent"), "{told}");
}

#[tokio::test]
async fn work_that_succeeds_says_when_and_work_that_fails_does_not() {
    let gauges = Gauges::default();
    let _recorded = metrics::set_default_local_recorder(&gauges);
    let app = App::start().await;
    let now = async || app.count("select floor(extract(epoch from clock_timestamp()))::bigint").await;
    let (before, stop) = (now().await, CancellationToken::new());
    let succeed = || async {
        stop.cancel();
        anyhow::Ok(())
    };
    keep_running("a success", &stop, Duration::ZERO, succeed).await;
    let stop = CancellationToken::new();
    let fail = || async {
        stop.cancel();
        Err::<(), _>(anyhow::anyhow!("it fails"))
    };
    keep_running("a failure", &stop, Duration::ZERO, fail).await;
    let at = |task: &str| gauges.get(&format!("background_last_success_timestamp_seconds {task}"));
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    let succeeded = at("a success").unwrap() as i64;
    assert!((before..=now().await).contains(&succeeded), "by the machine's clock: {succeeded}");
    assert_eq!(at("a failure"), None);
}
