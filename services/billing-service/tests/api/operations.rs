//! How the service says that it is well, and when it is not.

use billing_service::admin::SCOPE_READ;
use billing_service::audit::Decision;
use billing_service::grants::{WalletChange, decide};
use billing_service::operations::{GAUGES, Line, Status, status};
use serde_json::json;
use testkit::eventually::eventually;

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
