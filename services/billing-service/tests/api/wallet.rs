//! What operators change: once, with a name and a reason, and on record [B-78].

use super::app::{App, GRANT};
use billing_service::admin::{self, Command};
use billing_service::audit::{Decided, Decision};
use billing_service::error::Error;
use billing_service::grants::{NewGrant, Source, WalletChange, decide};
use billing_service::ledger::seal::seal;
use billing_service::ledger::verify::differences;
use billing_service::ledger::{self, postings};
use chassis::in_transaction;
use chrono::TimeDelta;
use clap::Parser;
use identity::OrganizationId;
use money::Currency;
use serde_json::{Value, json};
use testkit::http::TestClient;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// What is typed after the program's name, as the program reads it.
pub fn parse(arguments: &[&str]) -> Result<Command, clap::Error> {
    Line::try_parse_from([&["billing-service"], arguments].concat()).map(|line| line.command)
}

pub async fn run(app: &App, arguments: &[&str]) -> anyhow::Result<()> {
    admin::run(parse(arguments)?, app.config.clone()).await
}

async fn change(app: &App, key: &str, organization: OrganizationId, change: &WalletChange) -> Result<Decided, Error> {
    let state = app.state();
    let decision = Decision::new(&state, "ada", "a test", Some(key.to_owned()));
    decide(&state, &decision, organization, change).await
}

async fn with_wallet(app: &App) -> (OrganizationId, TestClient) {
    let (organization, client) = app.organization();
    app.balance(&client).await;
    (organization, client)
}

async fn log(app: &App) -> Vec<(String, String, String, Value, Value)> {
    let rows = sqlx::query_as("select actor, action, reason, before, after from audit_log order by id");
    rows.fetch_all(&app.database.owner).await.unwrap()
}

/// [B-78]
#[tokio::test]
async fn the_commands_change_what_they_say_and_leave_a_row_with_who_why_before_and_after() {
    let app = App::start().await;
    let ((ada, client), (eve, other)) = (with_wallet(&app).await, with_wallet(&app).await);
    let (a, e) = (ada.to_string(), eve.to_string());
    let who = ["--actor", "grace", "--reason", "a good one"];
    let grant = ["wallet", "grant", &a, "--amount-micros", "1000", "--priority", "1", "--model", "sim-small"];
    run(&app, &[&grant[..], &who].concat()).await.unwrap();
    assert_eq!(app.lots(&client).await, [("promotion".to_owned(), 1000), ("signup".to_owned(), GRANT)]);
    run(&app, &[&["wallet", "adjust", &a, "--amount-micros", "-400"][..], &who].concat()).await.unwrap();
    assert_eq!(app.balance(&client).await, (GRANT + 600, 0));
    run(&app, &[&["wallet", "transfer", &a, &e, "--amount-micros", "250"][..], &who].concat()).await.unwrap();
    assert_eq!((app.balance(&client).await.0, app.balance(&other).await.0), (GRANT + 350, GRANT + 250));
    let lot = client.get("/v1/balance").await.expect(200).json["lots"][0]["id"].as_str().unwrap().to_owned();
    run(&app, &[&["wallet", "revoke", &lot][..], &who].concat()).await.unwrap();
    assert_eq!(app.balance(&client).await, (GRANT - 650, 0));
    run(&app, &[&["wallet", "overdraft", &a, "--limit-micros", "77"][..], &who].concat()).await.unwrap();
    assert_eq!(client.get("/v1/balance").await.expect(200).json["overdraft_limit_micros"], 77);
    run(&app, &["wallet", "show", &a]).await.unwrap();
    let rows = log(&app).await;
    let actions: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
    assert_eq!(actions, ["wallet.grant", "wallet.adjust", "wallet.transfer", "wallet.revoke", "wallet.overdraft"]);
    assert!(rows.iter().all(|row| (row.0.as_str(), row.2.as_str()) == ("grace", "a good one")));
    assert!(rows.windows(2).all(|pair| pair[0].4 == pair[1].3), "what one leaves, the next finds");
    assert_eq!(rows[0].3["wallet_micros"], json!(GRANT));
    assert_eq!(rows[4].4["overdraft_limit_micros"], json!(77));
    app.assert_clean().await;
}

/// [B-78]
#[tokio::test]
async fn what_is_refused_changes_nothing_and_leaves_no_row() {
    let app = App::start().await;
    let (ada, client) = with_wallet(&app).await;
    let (nobody, _) = app.organization();
    let a = ada.to_string();
    for arguments in [
        vec!["wallet", "grant", &a, "--amount-micros", "5", "--reason", "r"],
        vec!["wallet", "grant", &a, "--amount-micros", "5", "--actor", "x"],
        vec!["wallet", "grant", &a, "--amount-micros", "5", "--actor", " ", "--reason", "r"],
        vec!["wallet", "grant", &a, "--amount-micros", "5", "--actor", "x", "--reason", " "],
        vec!["wallet", "grant", &a, "--amount-micros", "0", "--actor", "x", "--reason", "r"],
        vec!["wallet", "grant", &a, "--amount-micros", "5", "--source", "signup", "--actor", "x", "--reason", "r"],
        vec!["wallet", "adjust", &a, "--amount-micros", "0", "--actor", "x", "--reason", "r"],
        vec!["wallet", "overdraft", &a, "--limit-micros", "-1", "--actor", "x", "--reason", "r"],
        vec!["wallet", "transfer", &a, &a, "--amount-micros", "1", "--actor", "x", "--reason", "r"],
        vec!["wallet", "revoke", "grt_0197f0a0000070008000000000000001", "--actor", "x", "--reason", "r"],
        vec!["wallet", "show", "org_0197f0a0000070008000000000000001"],
    ] {
        assert!(run(&app, &arguments).await.is_err(), "{arguments:?}");
    }
    let transfer = |to, amount| WalletChange::Transfer { to, amount };
    assert!(matches!(change(&app, "1", ada, &transfer(nobody, 1)).await, Err(Error::NotFound)));
    assert!(matches!(change(&app, "2", nobody, &WalletChange::Adjust { amount: 1 }).await, Err(Error::NotFound)));
    let (eve, _) = with_wallet(&app).await;
    assert!(matches!(change(&app, "3", ada, &transfer(eve, GRANT + 1)).await, Err(Error::InsufficientFunds)));
    assert_eq!((app.balance(&client).await, log(&app).await.len()), ((GRANT, 0), 0));
    app.assert_clean().await;
}

/// [B-51] [B-53]
#[tokio::test]
async fn a_command_that_is_repeated_under_its_key_is_done_once_and_another_under_it_is_refused() {
    let app = App::start().await;
    let ((ada, client), (eve, _)) = (with_wallet(&app).await, with_wallet(&app).await);
    let adjust = WalletChange::Adjust { amount: 100 };
    let done = futures::future::join_all((0..64).map(|_| change(&app, "k", ada, &adjust))).await;
    let done: Vec<Decided> = done.into_iter().map(Result::unwrap).collect();
    assert_eq!(done.iter().filter(|decided| !decided.repeated).count(), 1);
    assert!(done.iter().all(|decided| decided.after == done[0].after));
    assert_eq!((app.balance(&client).await, log(&app).await.len()), ((GRANT + 100, 0), 1));
    for (organization, other) in [(ada, WalletChange::Adjust { amount: 101 }), (ada, WalletChange::Overdraft { limit: 1 }), (eve, adjust)] {
        assert!(matches!(change(&app, "k", organization, &other).await, Err(Error::Refused(_))), "{other:?}");
    }
    assert_eq!(app.balance(&client).await, (GRANT + 100, 0));
    app.assert_clean().await;
}

#[tokio::test]
async fn a_revocation_leaves_what_is_held_and_never_touches_what_was_paid_for() {
    let app = App::with(|config| config.signup_grant = 0).await;
    let (organization, client) = with_wallet(&app).await;
    let paid = NewGrant { paid: Some(500), ..NewGrant::plain(Source::Purchase, "cs_1", 500) };
    let bought = app.give(organization, &paid).await.unwrap();
    let refused = change(&app, "1", organization, &WalletChange::Revoke { grant: bought }).await;
    assert!(matches!(refused, Err(Error::Refused(_))));
    let given = app.give(organization, &NewGrant { priority: Some(1), ..NewGrant::plain(Source::Promotion, "gift", 2000) }).await.unwrap();
    let hold = app.hold(organization, 0, 200).await;
    change(&app, "2", organization, &WalletChange::Revoke { grant: given }).await.unwrap();
    assert_eq!((app.balance(&client).await, app.house("promotion").await), ((0, 2400), -1900));
    assert!(matches!(change(&app, "3", organization, &WalletChange::Revoke { grant: given }).await, Err(Error::InsufficientFunds)));
    app.settle(&hold, &app.usage(0, 10)).await.expect(200);
    change(&app, "4", organization, &WalletChange::Revoke { grant: given }).await.unwrap();
    assert_eq!(app.lots(&client).await, [("purchase".to_owned(), 500)]);
    let states = client.get("/v1/grants").await.expect(200).json;
    assert_eq!((&states["data"][0]["state"], &states["data"][1]["state"]), (&json!("revoked"), &json!("active")));
    app.assert_clean().await;
}

/// [B-45] What is bound in holds rests on the lots that may pay for it, however much there is beside them.
#[tokio::test]
async fn a_revocation_leaves_what_is_held_also_where_other_credit_is_for_one_model_alone() {
    let app = App::with(|config| config.signup_grant = 0).await;
    let (organization, client) = with_wallet(&app).await;
    let given = app.give(organization, &NewGrant::plain(Source::Promotion, "gift", 3000)).await.unwrap();
    let other = NewGrant { models: Some(vec!["other".into()]), ..NewGrant::plain(Source::Promotion, "other", 9000) };
    let other = app.give(organization, &other).await.unwrap();
    let hold = app.hold(organization, 0, 200).await;
    assert_eq!(app.balance(&client).await, (9600, 2400));
    change(&app, "1", organization, &WalletChange::Revoke { grant: given }).await.unwrap();
    assert_eq!(app.balance(&client).await, (9000, 2400));
    change(&app, "2", organization, &WalletChange::Revoke { grant: other }).await.unwrap();
    app.settle(&hold, &app.usage(0, 200)).await.expect(200);
    assert_eq!((app.balance(&client).await, app.debt(organization).await), ((0, 0), 0));
    app.assert_clean().await;
}

#[tokio::test]
async fn what_was_paid_for_is_not_revoked_where_it_was_transferred_to_either() {
    let app = App::with(|config| config.signup_grant = 0).await;
    let ((ada, _), (eve, other), (bob, third)) = (with_wallet(&app).await, with_wallet(&app).await, with_wallet(&app).await);
    app.give(ada, &NewGrant { paid: Some(500), ..NewGrant::plain(Source::Purchase, "cs_1", 500) }).await.unwrap();
    app.give(ada, &NewGrant::plain(Source::Promotion, "gift", 200)).await.unwrap();
    change(&app, "1", ada, &WalletChange::Transfer { to: eve, amount: 700 }).await.unwrap();
    change(&app, "2", eve, &WalletChange::Transfer { to: bob, amount: 600 }).await.unwrap();
    for (key, organization, client) in [("a", eve, &other), ("b", bob, &third)] {
        let grants = client.get("/v1/grants").await.expect(200).json["data"].clone();
        for grant in grants.as_array().unwrap().iter().filter(|grant| grant["remaining_micros"] != 0) {
            let revoke = WalletChange::Revoke { grant: grant["id"].as_str().unwrap().parse().unwrap() };
            let revoked = change(&app, &format!("{key}{}", grant["id"]), organization, &revoke).await;
            assert_eq!(matches!(revoked, Err(Error::Refused(_))), grant["source"] == "purchase", "{grant}");
        }
    }
    app.assert_clean().await;
}

#[tokio::test]
async fn a_transfer_moves_lots_as_they_are_and_repays_what_the_other_side_owes() {
    let app = App::with(|config| config.signup_grant = 0).await;
    let ((ada, client), (eve, other)) = (with_wallet(&app).await, with_wallet(&app).await);
    let expires_at = Some(app.clock.now() + TimeDelta::days(1));
    app.give(ada, &NewGrant { expires_at, ..NewGrant::plain(Source::Plan, "plan", 300) }).await;
    app.give(ada, &NewGrant::plain(Source::Purchase, "bought", 300)).await;
    app.give(ada, &NewGrant { models: Some(vec!["m".into()]), ..NewGrant::plain(Source::Promotion, "m", 900) }).await;
    change(&app, "debt", eve, &WalletChange::Adjust { amount: -50 }).await.unwrap();
    assert!(matches!(change(&app, "0", ada, &WalletChange::Transfer { to: eve, amount: 601 }).await, Err(Error::InsufficientFunds)));
    change(&app, "1", ada, &WalletChange::Transfer { to: eve, amount: 400 }).await.unwrap();
    assert_eq!(app.lots(&client).await, [("promotion".to_owned(), 900), ("purchase".to_owned(), 200)]);
    assert_eq!(app.lots(&other).await, [("plan".to_owned(), 250), ("purchase".to_owned(), 100)]);
    assert_eq!((app.debt(eve).await, app.house("transfers").await), (0, 0));
    let moved = other.get("/v1/balance").await.expect(200).json;
    assert_eq!((&moved["next_expiry"]["amount_micros"], &moved["lots"][1]["expires_at"]), (&json!(250), &Value::Null));
    app.assert_clean().await;
}

/// [B6] One order of locks for all: nobody waits in a circle.
#[tokio::test]
async fn transfers_in_both_directions_at_once_all_come_through() {
    let app = App::start().await;
    let ((ada, client), (eve, other)) = (with_wallet(&app).await, with_wallet(&app).await);
    let transfers = (0..24).map(|n| {
        let (from, to) = if n % 2 == 0 { (ada, eve) } else { (eve, ada) };
        let app = &app;
        async move { change(app, &format!("{n}"), from, &WalletChange::Transfer { to, amount: 10 + n }).await }
    });
    let done = futures::future::join_all(transfers).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!((app.balance(&client).await.0, app.balance(&other).await.0), (GRANT + 12, GRANT - 12));
    app.assert_clean().await;
}

/// A version that knows no lots may run beside this one while it is rolled out.
#[tokio::test]
async fn lots_that_were_posted_beside_are_named_and_brought_in_line() {
    let app = App::start().await;
    let ((ada, client), (eve, _)) = (with_wallet(&app).await, with_wallet(&app).await);
    let state = app.state();
    for (organization, posting) in [
        (ada, postings::adjustment("old", 700, ledger::balances(&state.pool, ada).await.unwrap().unwrap(), app.clock.now())),
        (eve, postings::shortfall("old", 300, app.clock.now())),
    ] {
        let posted: Result<bool, Error> = in_transaction!(state.pool, |transaction| {
            ledger::post(&state, transaction, Some(organization), Currency::USD, &posting).await
        });
        assert!(posted.unwrap());
    }
    let mut found = differences(&app.database.pool).await.unwrap();
    let mut expected = [
        format!("organization {ada} has {} USD in wallet and holds and {GRANT} in lots", GRANT - 700),
        format!("organization {eve} has {} USD in wallet and holds and {GRANT} in lots", GRANT + 300),
    ];
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let (a, e) = (ada.to_string(), eve.to_string());
    for organization in [&a, &e] {
        run(&app, &["wallet", "reconcile", organization, "--actor", "grace", "--reason", "the roll-out"]).await.unwrap();
    }
    assert_eq!(app.lots(&client).await, [("signup".to_owned(), GRANT - 700)]);
    assert_eq!(log(&app).await.len(), 2);
    app.assert_clean().await;
}

/// [B-78]
#[tokio::test]
async fn the_audit_log_is_never_changed() {
    let app = App::start().await;
    let (ada, _) = with_wallet(&app).await;
    change(&app, "k", ada, &WalletChange::Adjust { amount: 1 }).await.unwrap();
    for statement in ["update audit_log set actor = 'x'", "delete from audit_log", "truncate audit_log"] {
        let refused = sqlx::query(statement).execute(&app.database.pool).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
        let refused = sqlx::query(statement).execute(&app.database.owner).await.unwrap_err();
        assert_eq!(chassis::postgres::constraint(&refused), Some("audit_log_append_only"), "{statement}");
    }
}

#[tokio::test]
async fn the_ledger_commands_tell_a_clean_ledger_from_one_that_is_not_and_write_the_journal() {
    let app = App::start().await;
    let (ada, _) = with_wallet(&app).await;
    change(&app, "k", ada, &WalletChange::Adjust { amount: 1 }).await.unwrap();
    seal(&app.state()).await.unwrap();
    run(&app, &["ledger", "verify"]).await.unwrap();
    let head = sqlx::query_scalar("select encode(hash, 'hex') from ledger_seals order by id desc limit 1");
    let head: String = head.fetch_one(&app.database.owner).await.unwrap();
    run(&app, &["ledger", "verify", "--expect", &head]).await.unwrap();
    assert!(
        run(&app, &["ledger", "verify", "--expect", &"0".repeat(64)]).await.is_err(),
        "another chain was taken for the one that was kept"
    );
    assert!(run(&app, &["ledger", "verify", "--expect", "xyz"]).await.is_err());
    let folder = std::env::temp_dir().join(format!("{ada}"));
    let file = folder.to_str().unwrap();
    run(&app, &["ledger", "export", "--from", "2000-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z", "--output", file]).await.unwrap();
    let journal = std::fs::read_to_string(&folder).unwrap();
    std::fs::remove_file(&folder).unwrap();
    assert_eq!(journal.lines().count(), 5, "{journal}");
    app.as_owner("update accounts set balance_micros = balance_micros + 1 where kind = 'promotion'").await;
    assert!(run(&app, &["ledger", "verify"]).await.is_err());
}
