//! Migrations that can be applied while the service before them serves (`docs/operations/MIGRATIONS.md`).

use super::app::App;
use billing_service::MIGRATIONS;
use chassis::postgres::Migrations;
use sqlx::{Connection, Executor, PgConnection};
use testkit::postgres::PostgresServer;

/// Migrations from this one on keep the rules.
const SINCE: &str = "0050";

/// What is wrong with a migration, if something is.
fn faults(text: &str) -> Vec<&'static str> {
    let comments: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("--")).collect();
    let says = |word: &str| comments.iter().any(|line| line.trim_start().starts_with(&format!("-- {word}: ")));
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n").to_lowercase();
    let made: Vec<&str> =
        code.split("create table ").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()).collect();
    let mut faults = Vec::new();
    if !text.starts_with("-- ") {
        faults.push("it must begin with a comment that says why");
    }
    for statement in statements(&code) {
        let words = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        let altered = words.strip_prefix("alter table ").map(|rest| rest.trim_start_matches("only ").split(' ').next().unwrap_or_default());
        let other = altered.is_some_and(|table| !made.contains(&table));
        for action in words.split(", ") {
            let fault = if other && action.contains("alter column") && (action.contains(" type ") || action.contains("set not null")) {
                "a column's type or null-ness changes: add a column, fill it, and switch in the next release"
            } else if other && action.contains("add column") && action.contains("not null") && !action.contains("default") {
                "a new column that is not null needs a default: rows are there, and the version before writes without it"
            } else if other
                && ["add constraint", "add check", "add foreign key"].iter().any(|added| action.contains(added))
                && (action.contains("check (") || action.contains("foreign key"))
                && !action.contains("not valid")
                && !says("Locks")
            {
                "a constraint on rows that are there must be `not valid` first, or a comment `-- Locks: …` must say why it is short"
            } else if (other && (action.contains("drop column") || action.contains("rename ")) || action.starts_with("drop table "))
                && !says("Contract")
            {
                "what the version before reads goes one release later, with a comment `-- Contract: …`"
            } else if action.contains("concurrently") {
                "a migration is one transaction: an index is not made concurrently in it"
            } else {
                continue;
            };
            faults.push(fault);
        }
    }
    faults
}

/// Statements, with the bodies of functions left out.
fn statements(code: &str) -> Vec<String> {
    let outside: String = code.split("$$").step_by(2).collect();
    outside.split(';').map(|statement| statement.trim().to_owned()).filter(|statement| !statement.is_empty()).collect()
}

#[test]
fn no_migration_of_now_on_rewrites_or_blocks_a_table_or_takes_away_what_the_version_before_reads() {
    for (name, text) in MIGRATIONS.files.iter().filter(|(name, _)| *name >= SINCE) {
        assert_eq!(faults(text), Vec::<&str>::new(), "{name}");
    }
    assert!(MIGRATIONS.files.iter().any(|(name, _)| *name >= SINCE));
}

#[test]
fn each_rule_refuses_what_it_is_there_for_and_lets_its_right_form_pass() {
    let cases = [
        ("alter table usage_events alter column price_micros type numeric", false),
        ("alter table usage_events alter column model set not null", false),
        ("alter table usage_events add column a text, add column b text not null", false),
        ("alter table usage_events add column b text not null default ''", true),
        ("alter table usage_events add column b text", true),
        ("alter table usage_events drop column model", false),
        ("alter table usage_events rename column model to name", false),
        ("drop table catalog_audit", false),
        ("alter table usage_events add constraint positive check (price_micros >= 0)", false),
        ("alter table usage_events add constraint positive check (price_micros >= 0) not valid", true),
        ("create index concurrently a on usage_events (model)", false),
        ("create table new (a text); alter table new alter column a set not null", true),
        ("create function f() returns void language sql as $$ drop table x; $$", true),
    ];
    for (statement, fine) in cases {
        assert_eq!(faults(&format!("-- Why.\n{statement};")).is_empty(), fine, "{statement}");
    }
    assert!(faults("-- Why.\n-- Contract: nobody has read it since 0043.\ndrop table x;").is_empty());
    assert!(faults("-- Why.\n-- Locks: it has a dozen rows.\nalter table t add constraint c check (a > 0);").is_empty());
    assert!(!faults("create table t (a text);").is_empty(), "it does not say why");
}

/// Order is by name, so that whoever merges two branches sees at once when one would be skipped.
#[test]
fn migrations_are_listed_in_the_order_of_their_numbers_each_number_once() {
    let numbers: Vec<&str> = MIGRATIONS.files.iter().map(|(name, _)| &name[..4]).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}

/// [B-75] Postgres empties an unlogged table when it comes up after a crash: a comparison that goes on would find missing what it had listed.
/// Only `house_moves` may be one: it is empty for whoever did not write it, since each transaction takes its row away before it commits.
#[tokio::test]
async fn a_crash_of_the_database_empties_no_table() {
    let app = App::start().await;
    let listed = "select count(*) from pg_class where oid = 'reconciliation_listed'::regclass and relpersistence = 'p'";
    assert_eq!(app.count(listed).await, 1);
    let emptied = sqlx::query_scalar::<_, String>(
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'i', 'S')
           and relpersistence <> 'p' and relname not like 'house\\_moves%'",
    );
    assert_eq!(emptied.fetch_all(&app.database.owner).await.unwrap(), Vec::<String>::new());
}

/// A month that was detached has each foreign key for itself.
#[tokio::test]
async fn no_table_refers_to_leases_any_more_nor_does_a_month_that_was_detached_before() {
    let server = PostgresServer::start().await.unwrap();
    server.empty("old", "billing_migrator").await.unwrap();
    let mut owner = PgConnection::connect(&server.url("billing_migrator", "old")).await.unwrap();
    let retention = MIGRATIONS.files.iter().position(|(name, _)| *name == "0132_leases_retention").unwrap();
    Migrations { files: &MIGRATIONS.files[..retention], ..MIGRATIONS }.apply(&mut owner).await.unwrap();
    owner.execute("alter table usage_events detach partition usage_events_default").await.unwrap();
    let referring = "select count(*) from pg_constraint where contype = 'f' and confrelid = 'leases'::regclass and conparentid = 0";
    assert_eq!(sqlx::query_scalar::<_, i64>(referring).fetch_one(&mut owner).await.unwrap(), 2);
    MIGRATIONS.apply(&mut owner).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(referring).fetch_one(&mut owner).await.unwrap(), 0);
}

/// Where whoever calls may make temporary tables, one of his own would stand in the place of the table that is meant.
#[tokio::test]
async fn functions_with_their_owners_rights_look_for_temporary_tables_last() {
    let app = App::start().await;
    let otherwise = "select count(*) from pg_proc where pronamespace = 'public'::regnamespace and prosecdef
        and not coalesce(proconfig, '{}') @> array['search_path=public, pg_temp']";
    let all = "select count(*) from pg_proc where pronamespace = 'public'::regnamespace and prosecdef";
    assert_eq!(app.count(otherwise).await, 0);
    assert!(app.count(all).await > 10);
}
