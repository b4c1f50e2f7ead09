//! `Idempotency-Key` [B-51 to B-54].

use axum::response::IntoResponse;
use chassis::idempotency::{Answer, Begun, Call, begin};
use chassis::postgres::{DatabaseError, constraint};
use chassis::{Clock, Problem};
use futures::future::join_all;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use sqlx::PgPool;
use testkit::postgres::database;

use super::MIGRATIONS;

#[derive(Debug)]
enum Error {
    Refused(Problem),
    Database(sqlx::Error),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl DatabaseError for Error {
    fn database(&self) -> Option<&sqlx::Error> {
        if let Self::Database(error) = self { Some(error) } else { None }
    }
}

fn call(key: Option<&str>, body: &str) -> Result<Call, Problem> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        headers.insert("idempotency-key", key.parse().unwrap());
    }
    Call::new(&headers, "org_1", "POST /notes", &json!({"text": body}))
}

/// Writes a note; the answer's body, and whether it was recorded earlier.
async fn write(pool: &PgPool, key: Option<&str>, text: &str) -> Result<(String, bool), Error> {
    let mut open = match begin::<Error>(pool, &Clock::system(), call(key, text)?).await? {
        Begun::Open(open) => open,
        Begun::Recorded(answer) => return Ok(seen(answer).await),
    };
    sqlx::query("insert into notes (id, text) select coalesce(max(id), 0) + 1, $1 from notes")
        .bind(text)
        .execute(&mut *open.transaction)
        .await?;
    Ok(seen(open.finish(Answer::json(StatusCode::CREATED, &json!({"text": text}))).await?).await)
}

async fn seen(answer: Answer) -> (String, bool) {
    let response = answer.into_response();
    assert_eq!(response.status(), StatusCode::CREATED);
    let replayed = response.headers().contains_key("idempotency-replayed");
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    (String::from_utf8(body.to_vec()).unwrap(), replayed)
}

async fn notes(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from notes").fetch_one(pool).await.unwrap()
}

/// [B-51]
#[tokio::test]
async fn of_many_calls_with_one_key_one_has_its_effect_and_all_get_its_answer() {
    let database = database(MIGRATIONS).await;
    let answers = join_all((0..32).map(|_| write(&database.pool, Some("k"), "hello"))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|(body, _)| body == "{\"text\":\"hello\"}"));
    assert_eq!(answers.iter().filter(|(_, replayed)| !replayed).count(), 1);
    assert_eq!(notes(&database.pool).await, 1);
}

/// [B-51]
#[tokio::test]
async fn a_key_that_comes_with_another_request_is_refused() {
    let database = database(MIGRATIONS).await;
    write(&database.pool, Some("k"), "hello").await.unwrap();
    let Err(Error::Refused(problem)) = write(&database.pool, Some("k"), "other").await else { panic!("it was accepted") };
    assert_eq!((problem.status(), problem.code()), (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"));
    assert_eq!(notes(&database.pool).await, 1);
}

/// [B-52] [B-54]
#[tokio::test]
async fn a_failure_leaves_the_key_free_and_another_broken_rule_is_not_taken_for_a_repetition() {
    let database = database(MIGRATIONS).await;
    write(&database.pool, None, "taken").await.unwrap();
    let Err(Error::Database(error)) = write(&database.pool, Some("k"), "taken").await else { panic!("it was accepted") };
    assert_eq!(constraint(&error), Some("notes_text_key"));
    let (_, replayed) = write(&database.pool, Some("k"), "free").await.unwrap();
    assert!(!replayed);
}

#[tokio::test]
async fn calls_without_a_key_are_simply_run_and_a_malformed_key_is_refused() {
    let database = database(MIGRATIONS).await;
    write(&database.pool, None, "one").await.unwrap();
    write(&database.pool, None, "two").await.unwrap();
    assert_eq!(notes(&database.pool).await, 2);
    assert_eq!(call(Some(""), "x").unwrap_err().status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(call(Some(&"k".repeat(256)), "x").unwrap_err().status(), StatusCode::UNPROCESSABLE_ENTITY);
}
