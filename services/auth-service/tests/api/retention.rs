//! What is removed and when: sessions with their tokens, the audit where it is asked for, and each kind whatever becomes of the others.

use std::time::Duration;

use super::app::App;
use auth_service::audit::{self, Event};
use auth_service::{MIGRATIONS, housekeeping, sessions};
use chassis::Random;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use sqlx::PgPool;
use testkit::TestDatabase;
use tokio_util::sync::CancellationToken;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::query(statement).execute(pool).await.unwrap();
}

async fn count(database: &TestDatabase, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&database.owner).await.unwrap()
}

/// A database in which there is somebody who may have sessions.
async fn database() -> TestDatabase {
    let database = testkit::postgres::database(MIGRATIONS).await;
    let user = "insert into users (id, email, name, password_hash, created_at)
                values (gen_random_uuid(), 'ada@example.com', 'Ada', '', '2029-01-01T00:00:00Z')";
    execute(&database.owner, user).await;
    let organization = "insert into organizations (id, name, created_at) values (gen_random_uuid(), 'Ada', '2029-01-01T00:00:00Z')";
    execute(&database.owner, organization).await;
    database
}

/// Sessions that began and were revoked, if they were, at these instants; each with so many refresh tokens.
async fn begin(database: &TestDatabase, sessions: i32, tokens: i32, began: &str, revoked: Option<&str>) {
    sqlx::query(
        "with begun as (
             insert into sessions (id, user_id, organization_id, created_at, expires_at, revoked_at)
             select gen_random_uuid(), u.id, o.id, $1::timestamptz, $1::timestamptz + interval '30 days', $2::timestamptz
             from users u, organizations o, generate_series(1, $3) returning id)
         insert into refresh_tokens (token_sha256, session_id, created_at, expires_at)
         select sha256((b.id::text || n)::bytea), b.id, $1::timestamptz, $1::timestamptz + interval '7 days'
         from begun b, generate_series(1, $4) n",
    )
    .bind(at(began))
    .bind(revoked.map(at))
    .bind(sessions)
    .bind(tokens)
    .execute(&database.owner)
    .await
    .unwrap();
}

/// How many sessions there are, and how many tokens.
async fn counts(database: &TestDatabase) -> (i64, i64) {
    (count(database, "select count(*) from sessions").await, count(database, "select count(*) from refresh_tokens").await)
}

/// [I-51]
#[tokio::test]
async fn a_token_that_was_used_long_ago_is_recognized_as_long_as_its_session_lives() {
    let app = App::start().await;
    let (_, first) = app.session("ada@example.com").await;
    let mut token = app.refresh(&first).await.expect(200).string("refresh_token");
    for _ in 0..4 {
        app.turn.advance(Duration::from_hours(6 * 24));
        token = app.refresh(&token).await.expect(200).string("refresh_token");
        sessions::retention::keep(&app.database.pool, app.clock.now(), &CancellationToken::new()).await.unwrap();
    }
    assert_eq!(app.count("select count(*) from refresh_tokens").await, 6);
    app.refresh(&first).await.expect(401);
    assert_eq!(app.count("select count(*) from sessions where revoked_reason = 'reuse'").await, 1);
    app.refresh(&token).await.expect(401);
}

#[tokio::test]
async fn a_session_goes_with_its_tokens_thirty_days_after_it_was_ended_or_ran_out_and_not_before() {
    let database = database().await;
    begin(&database, 3, 2, "2029-11-01T00:00:00Z", Some("2029-11-10T00:00:00Z")).await;
    begin(&database, 2, 2, "2029-11-01T00:00:00Z", None).await;
    for (now, left) in [
        ("2029-12-10T00:00:00Z", (5, 10)),
        ("2029-12-10T00:00:01Z", (2, 4)),
        ("2029-12-31T00:00:00Z", (2, 4)),
        ("2029-12-31T00:00:01Z", (0, 0)),
    ] {
        sessions::retention::keep(&database.pool, at(now), &CancellationToken::new()).await.unwrap();
        assert_eq!(counts(&database).await, left, "{now}");
    }
}

#[tokio::test]
async fn a_run_removes_no_more_than_it_may_and_the_next_one_goes_on() {
    let database = database().await;
    begin(&database, 21, 2_405, "2029-01-01T00:00:00Z", Some("2029-01-02T00:00:00Z")).await;
    let (now, stop) = (at("2030-01-01T00:00:00Z"), CancellationToken::new());
    sessions::retention::keep(&database.pool, now, &stop).await.unwrap();
    assert_eq!(counts(&database).await, (21, 505));
    stop.cancel();
    sessions::retention::keep(&database.pool, now, &stop).await.unwrap();
    assert_eq!(counts(&database).await, (21, 505), "it was told to stop");
    sessions::retention::keep(&database.pool, now, &CancellationToken::new()).await.unwrap();
    assert_eq!(counts(&database).await, (0, 0));
}

#[tokio::test]
async fn replicas_that_remove_at_once_do_not_stand_in_each_others_way() {
    let database = database().await;
    begin(&database, 30, 100, "2029-01-01T00:00:00Z", Some("2029-01-02T00:00:00Z")).await;
    begin(&database, 1, 2, "2029-12-31T00:00:00Z", None).await;
    let (now, stop) = (at("2030-01-01T00:00:00Z"), CancellationToken::new());
    for run in join_all((0..4).map(|_| sessions::retention::keep(&database.pool, now, &stop))).await {
        run.unwrap();
    }
    // What one passed over because another held it, which then left it to the next run.
    sessions::retention::keep(&database.pool, now, &stop).await.unwrap();
    assert_eq!(counts(&database).await, (1, 2));
}

/// One row of each kind, older than it is kept.
async fn leave_old(database: &TestDatabase) {
    for row in [
        "insert into _outbox (id, kind, payload, occurred_at, sent_at)
         values (gen_random_uuid(), 'x', '{}', '2029-01-01T00:00:00Z', '2029-01-01T00:00:00Z')",
        "insert into _idempotency (scope, key, request_hash, status, body, created_at) values ('x', 'x', '', 0, '', '2029-01-01T00:00:00Z')",
        "insert into used_assertions (service, jti, expires_at) values ('x', 'x', '2029-01-01T00:00:00Z')",
        "insert into audit_events (id, occurred_at, action, outcome, actor)
         values ('00000000-0000-7000-8000-000000000000', '2020-01-01T00:00:00Z', 'x', 'success', 'x')",
    ] {
        execute(&database.owner, row).await;
    }
    begin(database, 1, 1, "2029-01-01T00:00:00Z", Some("2029-01-02T00:00:00Z")).await;
}

/// The kinds of which something is left.
async fn left(database: &TestDatabase) -> String {
    let query = "select coalesce(string_agg(kind, ' '), '') from (
                     select '_outbox' as kind from _outbox union all select '_idempotency' from _idempotency
                     union all select 'used_assertions' from used_assertions union all select 'refresh_tokens' from refresh_tokens
                     union all select 'audit_events' from audit_events) as kinds";
    sqlx::query_scalar(query).fetch_one(&database.owner).await.unwrap()
}

#[tokio::test]
async fn a_kind_that_cannot_be_removed_does_not_keep_the_others() {
    let database = database().await;
    let (now, stop) = (at("2030-01-01T00:00:00Z"), CancellationToken::new());
    let once = async || housekeeping::once(&database.pool, 400, now, &stop).await;
    for (kind, refuse, allow) in [
        ("_outbox", "revoke delete on _outbox from auth_app", "grant delete on _outbox to auth_app"),
        ("_idempotency", "revoke delete on _idempotency from auth_app", "grant delete on _idempotency to auth_app"),
        ("used_assertions", "revoke delete on used_assertions from auth_app", "grant delete on used_assertions to auth_app"),
        ("refresh_tokens", "revoke delete on refresh_tokens from auth_app", "grant delete on refresh_tokens to auth_app"),
        (
            "audit_events",
            "revoke execute on function audit_events_retire from auth_app",
            "grant execute on function audit_events_retire to auth_app",
        ),
    ] {
        leave_old(&database).await;
        execute(&database.owner, refuse).await;
        once().await.unwrap_err();
        assert_eq!(left(&database).await, kind);
        execute(&database.owner, allow).await;
        once().await.unwrap();
        assert_eq!(left(&database).await, "");
    }
}

/// Events of an instant, written as the service writes them.
async fn record(database: &TestDatabase, instant: &str, events: usize) {
    let (clock, turn) = testkit::clock();
    turn.set(at(instant));
    let (random, mut connection) = (Random::system(), database.pool.acquire().await.unwrap());
    for _ in 0..events {
        Event::of_operator("signing_key.rotate").write(&mut connection, &clock, &random).await.unwrap();
    }
}

/// [I-79]
#[tokio::test]
async fn the_audit_is_kept_for_ever_unless_a_time_is_set_and_never_for_less_than_ninety_days() {
    let database = database().await;
    for (instant, events) in [("2019-06-01T00:00:00Z", 1_100), ("2020-06-01T00:00:00Z", 1), ("2020-12-01T00:00:00Z", 1)] {
        record(&database, instant, events).await;
    }
    for (days, left) in [(0, 1_102), (400, 2), (1, 1)] {
        audit::retention::keep(&database.pool, days, at("2021-01-01T00:00:00Z"), &CancellationToken::new()).await.unwrap();
        assert_eq!(count(&database, "select count(*) from audit_events").await, left, "{days} days");
    }
    assert_eq!(count(&database, "select count(*) from audit_events where occurred_at = '2020-12-01T00:00:00Z'").await, 1);
}

/// [I-79] By the clock of the database, which the service cannot turn.
#[tokio::test]
async fn the_service_cannot_change_the_audit_nor_take_out_what_is_younger_than_ninety_days_whatever_it_asks_for() {
    let database = database().await;
    let events = "insert into audit_events (id, occurred_at, action, outcome, actor)
                  select ('00000000-0000-7000-8000-0000000000' || days)::uuid, now() - days * interval '1 day', 'x', 'success', 'x'
                  from unnest(array[10, 89, 91]) days";
    execute(&database.owner, events).await;
    for forbidden in ["update audit_events set outcome = 'failed'", "delete from audit_events", "truncate audit_events"] {
        sqlx::query(forbidden).execute(&database.pool).await.unwrap_err();
    }
    let all = "select audit_events_retire('infinity', 10)";
    assert_eq!(sqlx::query_scalar::<_, i64>(all).fetch_one(&database.pool).await.unwrap(), 1);
    assert_eq!(count(&database, "select count(*) from audit_events where occurred_at > now() - interval '90 days'").await, 2);
    assert_eq!(count(&database, "select count(*) from audit_events").await, 2);
}
