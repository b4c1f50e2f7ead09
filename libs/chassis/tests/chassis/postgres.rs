//! The database: transactions that are run again, limits, and migrations.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chassis::config::Millis;
use chassis::in_transaction;
use chassis::postgres::{ALIVE, MigrateError, Migrations, PostgresConfig, connect_patiently, constraint, is_unavailable};
use futures::future::join_all;
use sqlx::{Connection, PgConnection};
use testkit::eventually;
use testkit::postgres::{PostgresServer, database};
use tokio::net::{TcpListener, TcpStream};

use super::MIGRATIONS;

/// [B6]
#[tokio::test]
async fn a_transaction_that_lost_against_another_is_run_again() {
    let database = database(MIGRATIONS).await;
    sqlx::query("insert into notes (id, text) values (1, '0')").execute(&database.owner).await.unwrap();
    let runs = AtomicU32::new(0);
    // Under `serializable` two that read and write the same row cannot both succeed at the first try.
    let increments = (0..4).map(|_| async {
        let done: Result<(), sqlx::Error> = in_transaction!(database.pool, |transaction| {
            runs.fetch_add(1, Ordering::SeqCst);
            sqlx::query("set transaction isolation level serializable").execute(&mut **transaction).await?;
            let text: String = sqlx::query_scalar("select text from notes where id = 1").fetch_one(&mut **transaction).await?;
            let next = text.parse::<i64>().unwrap_or_default() + 1;
            sqlx::query("update notes set text = $1 where id = 1").bind(next.to_string()).execute(&mut **transaction).await?;
            Ok(())
        });
        done
    });
    let succeeded = join_all(increments).await.iter().filter(|outcome| outcome.is_ok()).count();
    let text: String = sqlx::query_scalar("select text from notes where id = 1").fetch_one(&database.pool).await.unwrap();
    assert_eq!(text, succeeded.to_string(), "an increment was lost or doubled");
    assert!(succeeded >= 1 && runs.load(Ordering::SeqCst) > 4, "nothing was run again");
}

#[tokio::test]
async fn an_error_names_the_constraint_that_was_broken_and_is_not_taken_for_an_outage() {
    let database = database(MIGRATIONS).await;
    let insert = || sqlx::query("insert into notes (id, text) select coalesce(max(id), 0) + 1, 'same' from notes").execute(&database.pool);
    insert().await.unwrap();
    let error = insert().await.unwrap_err();
    assert_eq!(constraint(&error), Some("notes_text_key"));
    assert!(!is_unavailable(&error));
}

/// [B27]
#[tokio::test]
async fn a_statement_or_a_lock_that_takes_too_long_is_an_outage_and_not_a_fault() {
    let database = database(MIGRATIONS).await;
    let mut impatient = database.config.clone();
    impatient.statement_timeout.0 = Duration::from_millis(50);
    let pool = chassis::postgres::connect(&impatient, "test").unwrap();
    let error = sqlx::query("select pg_sleep(30)").execute(&pool).await.unwrap_err();
    assert!(is_unavailable(&error), "{error}");
}

/// [B27]
#[tokio::test]
async fn a_connection_that_was_cut_while_it_rested_fails_nobody() {
    let database = database(MIGRATIONS).await;
    let single = PostgresConfig { max_connections: 1, ..database.config.clone() };
    let pool = chassis::postgres::connect(&single, "resting").unwrap();
    let process = || async { sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(&pool).await };
    let cut = process().await.unwrap();
    assert_eq!(process().await.unwrap(), cut, "the connection is used again");
    let rested = Instant::now();
    sqlx::query("select pg_terminate_backend($1, 10000)").bind(cut).execute(&database.pool).await.unwrap();
    eventually("it has rested", || async { (rested.elapsed() > ALIVE).then_some(()) }).await;
    assert_ne!(process().await.unwrap(), cut);
}

#[tokio::test]
async fn migrations_are_applied_once_by_any_number_of_processes_and_a_changed_one_is_refused() {
    let server = PostgresServer::start().await.unwrap();
    server.empty("fresh", "auth_migrator").await.unwrap();
    let url = server.url("auth_migrator", "fresh");
    let apply = |migrations: Migrations| {
        let url = url.clone();
        async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            migrations.apply(&mut connection).await
        }
    };
    for outcome in join_all((0..5).map(|_| apply(MIGRATIONS))).await {
        outcome.unwrap();
    }
    let changed = Migrations { files: &[("0001_notes", "create table other (id bigint)")], ..MIGRATIONS };
    assert!(matches!(apply(changed).await, Err(MigrateError::Changed("0001_notes"))));
    let files: &'static [_] = Box::leak(Box::new([MIGRATIONS.files[0], ("0002_broken", "create table half (id bigint); select nonsense")]));
    let broken = Migrations { files, ..MIGRATIONS };
    assert!(matches!(apply(broken).await, Err(MigrateError::Failed { name: "0002_broken", .. })));
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let half: Option<String> = sqlx::query_scalar("select to_regclass('half')::text").fetch_one(&pool).await.unwrap();
    assert_eq!(half, None, "half of a migration stayed");
    MIGRATIONS.verify(&pool).await.unwrap();
    assert!(matches!(broken.verify(&pool).await, Err(MigrateError::Missing("0002_broken"))));
}

/// Who waits for a table that is in use makes everybody after it wait: a migration waits shortly, gives way, and tries again.
#[tokio::test]
async fn a_migration_whose_table_is_in_use_gives_way_and_tries_again_until_it_has_it() {
    let database = database(MIGRATIONS).await;
    let mut user = database.owner.begin().await.unwrap();
    sqlx::query("lock table notes in share mode").execute(&mut *user).await.unwrap();
    let files: &'static [_] = Box::leak(Box::new([MIGRATIONS.files[0], ("0002_more", "alter table notes add column more text")]));
    let options = (*database.owner.connect_options()).clone().options([("lock_timeout", "50")]);
    let mut migrator = PgConnection::connect_with(&options).await.unwrap();
    let migration = tokio::spawn(async move { Migrations { files, ..MIGRATIONS }.apply(&mut migrator).await });
    let tries = std::sync::Mutex::new(std::collections::HashSet::new());
    testkit::eventually("a second try", || async {
        let waiting = "select xact_start::text from pg_stat_activity where wait_event_type = 'Lock' and query like '%add column more%'";
        let waiting: Vec<String> = sqlx::query_scalar(waiting).fetch_all(&database.owner).await.unwrap();
        let mut tries = tries.lock().unwrap();
        tries.extend(waiting);
        (tries.len() > 1).then_some(())
    })
    .await;
    assert!(!migration.is_finished());
    user.rollback().await.unwrap();
    migration.await.unwrap().unwrap();
    sqlx::query("select more from notes").execute(&database.owner).await.unwrap();
}

#[tokio::test]
async fn a_service_whose_database_is_away_or_not_migrated_is_not_ready_and_becomes_ready_by_itself() {
    let readiness = chassis::health::Readiness::default();
    let server = PostgresServer::start().await.unwrap();
    server.empty("late", "auth_migrator").await.unwrap();
    let config = chassis::postgres::PostgresConfig { url: server.url("auth_app", "late"), ..database(MIGRATIONS).await.config };
    chassis::postgres::watch(&readiness, &chassis::postgres::connect(&config, "test").unwrap(), MIGRATIONS);
    assert_eq!(readiness.check().await.checks["postgres"], "migration chassis_0001_outbox is not applied");
    let mut connection = PgConnection::connect(&server.url("auth_migrator", "late")).await.unwrap();
    MIGRATIONS.apply(&mut connection).await.unwrap();
    assert!(readiness.check().await.ready);
    server.server.signal("STOP").unwrap();
    assert_eq!(readiness.check().await.checks["postgres"], "no answer in time");
    server.server.signal("CONT").unwrap();
    testkit::eventually("being ready again", || async { readiness.check().await.ready.then_some(()) }).await;
}

#[tokio::test]
async fn a_migration_waits_for_a_database_that_is_not_there_yet_and_for_no_role_that_is_refused() {
    let server = PostgresServer::start().await.unwrap();
    let url = server.url("auth_migrator", "postgres");
    let upstream = url.rsplit(['@', '/']).nth(1).unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let forwarding = tokio::spawn(async move {
        // The first two find nobody.
        for _ in 0..2 {
            drop(listener.accept().await.unwrap());
        }
        loop {
            let (mut inner, mut outer) = (listener.accept().await.unwrap().0, TcpStream::connect(&upstream).await.unwrap());
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inner, &mut outer).await });
        }
    });
    let mut config = PostgresConfig {
        url: format!("postgres://auth_migrator@127.0.0.1:{port}/postgres"),
        password: None,
        max_connections: 1,
        statement_timeout: Millis(Duration::from_secs(20)),
        wait_timeout: Millis(Duration::from_secs(10)),
    };
    connect_patiently(&config, "test").await.expect("a connection, at the third try").close().await.unwrap();
    config.url = format!("postgres://nobody_knows@127.0.0.1:{port}/postgres");
    let refused = connect_patiently(&config, "test").await.expect_err("an unknown role");
    assert!(refused.as_database_error().is_some(), "{refused}");
    forwarding.abort();
}
