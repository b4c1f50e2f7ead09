//! Requirements that belong to no single route.

use std::time::Duration;

use billing_service::budgets::alerts::evaluate_all;
use billing_service::leases::sweep_leases;
use billing_service::router;
use chassis::config::Millis;
use sqlx::AssertSqlSafe;
use testkit::repository;

use super::app::{App, GRANT};

/// [B-28] Five dollars are not minus five euros: a transaction balances in each currency, and no sum over both can hide it.
#[tokio::test]
async fn amounts_of_two_currencies_never_cancel_each_other_out() {
    let app = App::start().await;
    app.as_owner("insert into accounts (id, kind, currency) values (gen_random_uuid(), 'revenue', 'EUR'), (gen_random_uuid(), 'breakage', 'EUR') on conflict do nothing").await;
    app.as_owner("insert into accounts (id, kind, currency) values (gen_random_uuid(), 'revenue', 'USD') on conflict do nothing").await;
    let post = async |key: &'static str, accounts: &'static str| {
        let mut transaction = app.database.owner.begin().await.unwrap();
        let row = "insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'rounding', $1, now())";
        sqlx::query(row).bind(key).execute(&mut *transaction).await.unwrap();
        let entries = format!(
            "insert into ledger_entries (transaction_id, account_id, amount_micros)
             select t.id, a.id, case a.kind when 'revenue' then 5 else -5 end from ledger_transactions t, accounts a
             where t.external_key = $1 and a.organization_id is null and ({accounts})"
        );
        assert_eq!(sqlx::query(AssertSqlSafe(entries)).bind(key).execute(&mut *transaction).await?.rows_affected(), 2);
        transaction.commit().await
    };
    let refused = post("across", "a.kind = 'revenue' and currency = 'USD' or a.kind = 'breakage' and currency = 'EUR'").await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("ledger_transactions_balanced"));
    post("within", "a.kind in ('revenue', 'breakage') and currency = 'EUR'").await.unwrap();
}

/// [B-74] Time has one source, which tests turn and nobody else: no route does, and lints keep every other clock out.
#[test]
fn no_route_turns_the_clock_and_there_is_no_other() {
    let document: serde_json::Value = serde_json::from_str(&router::openapi()).unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        assert!(!path.contains("clock") && !path.contains("time"), "{path}");
    }
    let lints = repository::read("clippy.toml");
    for clock in ["chrono::Utc::now", "std::time::SystemTime::now", "uuid::Uuid::now_v7"] {
        assert!(lints.contains(clock), "{clock} may be called");
    }
}

/// [B19] A budget whose scope names nobody is about nobody, and not about everybody.
#[tokio::test]
async fn a_budget_for_nobody_does_not_tell_what_everybody_spends() {
    let app = App::start().await;
    let (ada, _) = app.organization();
    let hold = app.hold(ada, 100, 100).await;
    app.settle(&hold, &app.usage(100, 100)).await.expect(200);
    for scope in ["user", "api_key"] {
        let row = "insert into budgets (id, organization_id, name, scope, scope_id, period, limit_micros, currency, hard, thresholds, forecast, created_at, updated_at)
             values (gen_random_uuid(), $1, 'x', $2, '-', 'month', 1, 'USD', false, '{50}', false, now(), now())";
        sqlx::query(row).bind(ada.uuid()).bind(scope).execute(&app.database.owner).await.unwrap();
        assert_eq!(evaluate_all(&app.state()).await.unwrap(), 0, "{scope}");
        assert_eq!(app.count("select count(*) from budgets where next_at is not null").await, 1, "{scope}: it is set aside, which is told");
        assert_eq!(app.count("select count(*) from budget_alerts").await, 0, "{scope}");
        app.as_owner("delete from budgets").await;
    }
}

/// [B-42] When a lease ends after the last deadline of its requests, none of them can be in flight: a closed lease holds nothing.
#[tokio::test]
async fn a_lease_that_ends_after_the_last_deadline_of_its_requests_gives_all_of_it_back() {
    let app = App::with(|config| config.sweep = Millis(Duration::from_hours(1))).await;
    let (organization, client) = app.organization();
    app.used(organization).await;
    app.turn.advance(Duration::from_mins(10));
    sweep_leases(&app.state()).await.unwrap();
    assert_eq!(app.balance(&client).await, (GRANT, 0));
    app.assert_clean().await;
}
