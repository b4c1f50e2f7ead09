//! `Idempotency-Key`: the answer to a mutating call is recorded in the transaction of its effect; a repetition gets the same
//! answer and has no effect [B-51 to B-54].

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgPool;
use sqlx::{Postgres, Row, Transaction};

use crate::clock::Clock;
use crate::postgres::{DatabaseError, constraint};
use crate::problem::Problem;

/// The header of the key.
pub const HEADER: &str = "idempotency-key";
/// The header that says an answer was recorded earlier.
pub const REPLAYED: &str = "idempotency-replayed";

/// One call: where its key counts, the key (absent: the call is simply run), and what it asks for.
#[derive(Debug, Clone)]
pub struct Call {
    scope: String,
    key: Option<String>,
    hash: Vec<u8>,
}

impl Call {
    /// A call of `caller` (an organization, or an address for calls without a credential) on `route`, with its body as it was understood.
    ///
    /// # Errors
    /// 422 when the key is empty, longer than 255 characters or not printable ASCII.
    pub fn new(headers: &HeaderMap, caller: &str, route: &str, body: &impl Serialize) -> Result<Self, Problem> {
        let key = headers.get(HEADER).map(|value| value.to_str().ok().filter(|key| (1..=255).contains(&key.len())));
        let key = match key {
            Some(None) => return Err(Problem::invalid_field("Idempotency-Key", "must be 1 to 255 printable ASCII characters")),
            Some(Some(key)) => Some(key.to_owned()),
            None => None,
        };
        let body = serde_json::to_vec(body).unwrap_or_default();
        Ok(Self { scope: format!("{caller} {route}"), key, hash: Sha256::digest(body).to_vec() })
    }
}

impl Call {
    /// What is the same in every repetition of this call and in no other call; none without a key.
    #[must_use]
    pub fn identity(&self) -> Option<Vec<u8>> {
        let key = self.key.as_ref()?;
        // Lengths first, so that no two different calls run together.
        let parts = [self.scope.as_bytes(), key.as_bytes(), &self.hash];
        Some(parts.iter().flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.iter().copied())).collect())
    }
}

/// An answer that can be recorded.
#[derive(Debug, Clone)]
pub struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    replayed: bool,
}

impl Answer {
    /// A JSON answer.
    #[must_use]
    pub fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self { status, body: serde_json::to_vec(body).unwrap_or_default(), replayed: false }
    }

    /// The same answer with a body made of this one: for what must be in the answer and not in the record.
    ///
    /// # Errors
    /// When the body is not a `T`.
    pub fn map<T: DeserializeOwned, U: Serialize>(mut self, change: impl FnOnce(T) -> U) -> Result<Self, serde_json::Error> {
        self.body = serde_json::to_vec(&change(serde_json::from_slice(&self.body)?))?;
        Ok(self)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// What to do with a call.
#[derive(Debug)]
pub enum Begun {
    /// It was answered before: give this answer, do nothing.
    Recorded(Answer),
    /// It is new: have the effect in its transaction, then [`Open::finish`].
    Open(Open),
}

/// A call whose effect is under way. Dropped without [`finish`](Self::finish), everything is rolled back and the key is free [B-52].
#[derive(Debug)]
pub struct Open {
    /// The transaction of the effect.
    pub transaction: Transaction<'static, Postgres>,
    claim: Option<(String, String)>,
}

impl Open {
    /// Records the answer and commits it with the effect.
    ///
    /// # Errors
    /// The database's; then nothing has happened.
    pub async fn finish(mut self, answer: Answer) -> Result<Answer, sqlx::Error> {
        if let Some((scope, key)) = &self.claim {
            sqlx::query("update _idempotency set status = $3, body = $4 where scope = $1 and key = $2")
                .bind(scope)
                .bind(key)
                .bind(i16::try_from(answer.status.as_u16()).unwrap_or(500))
                .bind(&answer.body)
                .execute(&mut *self.transaction)
                .await?;
        }
        self.transaction.commit().await?;
        Ok(answer)
    }
}

/// Claims the call's key in a new transaction, or finds its recorded answer. While another call with the same key runs, this
/// one waits for it on the database's unique index, up to the lock time limit.
///
/// # Errors
/// The database's; 422 `idempotency_key_reused` when the key came with another request.
pub async fn begin<E>(pool: &PgPool, clock: &Clock, call: Call) -> Result<Begun, E>
where
    E: DatabaseError + From<Problem>,
{
    let mut transaction = pool.begin().await?;
    let Some(key) = call.key.clone() else { return Ok(Begun::Open(Open { transaction, claim: None })) };
    let claimed =
        sqlx::query("insert into _idempotency (scope, key, request_hash, status, body, created_at) values ($1, $2, $3, 0, '', $4)")
            .bind(&call.scope)
            .bind(&key)
            .bind(&call.hash)
            .bind(clock.now())
            .execute(&mut *transaction)
            .await;
    match claimed {
        Ok(_) => Ok(Begun::Open(Open { transaction, claim: Some((call.scope, key)) })),
        // Distinguished from any other unique violation [B-54].
        Err(error) if constraint(&error) == Some("_idempotency_pkey") => {
            drop(transaction);
            recorded(pool, &call, &key).await.map(Begun::Recorded)
        }
        Err(error) => Err(error.into()),
    }
}

async fn recorded<E: DatabaseError + From<Problem>>(pool: &PgPool, call: &Call, key: &str) -> Result<Answer, E> {
    let row = sqlx::query("select request_hash, status, body from _idempotency where scope = $1 and key = $2")
        .bind(&call.scope)
        .bind(key)
        .fetch_one(pool)
        .await?;
    if row.try_get::<Vec<u8>, _>(0)? != call.hash {
        let problem =
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The Idempotency-Key was used with another request");
        return Err(problem.field("Idempotency-Key", "must be new for a new request").into());
    }
    let status = u16::try_from(row.try_get::<i16, _>(1)?).ok().and_then(|status| StatusCode::from_u16(status).ok());
    Ok(Answer { status: status.unwrap_or(StatusCode::OK), body: row.try_get(2)?, replayed: true })
}

/// Removes answers recorded before `before`; repetitions later than that have their effect again.
///
/// # Errors
/// The database's.
pub async fn prune(pool: &PgPool, before: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    Ok(sqlx::query("delete from _idempotency where created_at < $1").bind(before).execute(pool).await?.rows_affected())
}
