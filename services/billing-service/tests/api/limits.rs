//! What the database itself holds against everybody: limits of wallets, and rows that are only ever inserted.

use super::app::App;
use billing_service::ledger::chart::Account;
use billing_service::ledger::postings::{self, Posting};
use billing_service::ledger::{self};
use chassis::in_transaction;
use chassis::postgres::constraint;
use identity::OrganizationId;
use money::Currency;

/// Posts whatever it is given, without any check of the service's own.
async fn post(app: &App, organization: OrganizationId, posting: &Posting) -> Result<bool, billing_service::error::Error> {
    let state = app.state();
    in_transaction!(state.pool, |transaction| { ledger::post(&state, transaction, Some(organization), Currency::USD, posting).await })
}

fn rule(error: &billing_service::error::Error) -> Option<String> {
    match error {
        billing_service::error::Error::Database(error) => constraint(error).map(ToOwned::to_owned),
        _ => None,
    }
}

/// [B-37]
#[tokio::test]
async fn a_wallet_with_an_overdraft_goes_down_to_its_limit_and_not_one_further() {
    let app = App::with(|config| config.signup_grant = 1000).await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    let now = app.clock.now();
    let refused = post(&app, organization, &postings::lease("a", 1001, now)).await.unwrap_err();
    assert_eq!(rule(&refused).as_deref(), Some("accounts_not_overdrawn"), "without a limit");
    app.as_owner("update wallets set overdraft_limit = 500").await;
    let refused = post(&app, organization, &postings::lease("b", 1501, now)).await.unwrap_err();
    assert_eq!(rule(&refused).as_deref(), Some("accounts_not_overdrawn"), "one beyond the limit");
    post(&app, organization, &postings::lease("c", 1500, now)).await.unwrap();
    assert_eq!(app.balance(&client).await, (-500, 1500));
    // A limit that is lowered afterwards does not hinder what comes back.
    app.as_owner("update wallets set overdraft_limit = 0").await;
    let balances = ledger::balances(&app.database.pool, organization).await.unwrap().unwrap();
    post(&app, organization, &postings::lease_return("c", 1500, balances, now)).await.unwrap();
    assert_eq!(app.balance(&client).await, (1000, 0));
}

/// [B-37] What is owed counts against a hold even where the wallet alone would reach.
#[tokio::test]
async fn a_hold_of_what_is_owed_is_refused_by_the_database() {
    let app = App::with(|config| config.signup_grant = 1000).await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    let now = app.clock.now();
    post(&app, organization, &postings::shortfall("loan", 600, now)).await.unwrap();
    assert_eq!(app.balance(&client).await, (1000, 0));
    for posting in [postings::lease("a", 1001, now), postings::transfer_out("b", 1001, now)] {
        let refused = post(&app, organization, &posting).await.unwrap_err();
        assert_eq!(rule(&refused).as_deref(), Some("wallets_within_limit"), "{posting:?}");
    }
    post(&app, organization, &postings::lease("c", 1000, now)).await.unwrap();
}

/// [B-37]
#[tokio::test]
async fn of_sixty_four_holds_at_once_exactly_those_are_made_that_wallet_and_overdraft_reach_for() {
    let app = App::with(|config| config.signup_grant = 20).await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    app.as_owner("update wallets set overdraft_limit = 7").await;
    let tasks = (0..64).map(|n| {
        let (state, now) = (app.state(), app.clock.now());
        tokio::spawn(async move {
            let posting = postings::lease(format!("{n}"), 1, now);
            in_transaction!(state.pool, |transaction| {
                ledger::post(&state, transaction, Some(organization), Currency::USD, &posting).await
            })
        })
    });
    let outcomes = futures::future::join_all(tasks).await;
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().map(Result::unwrap).partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (27, 37));
    assert!(refused.into_iter().all(|error| rule(&error.unwrap_err()).as_deref() == Some("accounts_not_overdrawn")));
    assert_eq!(app.balance(&client).await, (-7, 27));
}

/// [B-35]
#[tokio::test]
async fn rows_of_the_ledger_are_never_changed_not_even_by_the_owner_of_the_schema() {
    let app = App::start().await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    for (table, change) in [("ledger_transactions", "kind = 'x'"), ("ledger_entries", "amount_micros = 1")] {
        for statement in [format!("update {table} set {change}"), format!("delete from {table}"), format!("truncate {table} cascade")] {
            let refused = sqlx::query(sqlx::AssertSqlSafe(statement.clone())).execute(&app.database.pool).await.unwrap_err();
            assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
            let refused = sqlx::query(sqlx::AssertSqlSafe(statement.clone())).execute(&app.database.owner).await.unwrap_err();
            assert!(constraint(&refused).is_some_and(|rule| rule.ends_with("_append_only")), "{statement}: {refused}");
        }
    }
    app.assert_clean().await;
}

/// [B-34] Whose an account is follows from its kind.
#[tokio::test]
async fn an_account_of_the_house_belongs_to_nobody_and_a_wallet_to_somebody() {
    let app = App::start().await;
    for account in Account::ALL {
        let owner = if account.belongs_to_organization() { "null" } else { "gen_random_uuid()" };
        let kind = account.as_str();
        let wrong =
            format!("insert into accounts (id, organization_id, kind, currency) values (gen_random_uuid(), {owner}, '{kind}', 'EUR')");
        let refused = sqlx::query(sqlx::AssertSqlSafe(wrong)).execute(&app.database.pool).await.unwrap_err();
        assert_eq!(constraint(&refused), Some("accounts_owner_check"), "{kind}");
    }
}
