//! API keys: made (shown once), listed, revoked.

pub mod lookup;
mod store;

use axum::Extension;
use axum::extract::State;
use chassis::Problem;
use chassis::cursor::Page;
use chassis::http::{Json, Path, Query, RequestContext};
use chassis::idempotency::{Answer, Begun, Call, Open, begin};
use chassis::in_transaction;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use identity::{ApiKeyId, ApiKeySecret, Authenticated, Principal, Scope, Scopes};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::audit::{self, Event};
use crate::error::Error;
use crate::state::AppState;
use store::Maker;

const MAX_NAME_CHARACTERS: usize = 100;

/// A key to make. The organization is the caller's; there is no field for another [I-72].
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// What people call it.
    #[schema(max_length = 100)]
    name: String,
    /// What it may be used for; by default chat, models and billing (reading). Never more than the caller may.
    scopes: Option<Scopes>,
    /// When it ends; if absent, with the key that makes it, or never. Never later than the caller's own key.
    expires_at: Option<DateTime<Utc>>,
    /// Requests per minute it may make; if absent, as many as the key that makes it. Never more than the caller's own key.
    #[schema(minimum = 1)]
    requests_per_minute: Option<u32>,
}

/// A key as it is listed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// Its id.
    id: ApiKeyId,
    /// What people call it.
    name: String,
    /// What the key starts with.
    prefix: String,
    /// What it ends with.
    last_four: String,
    /// What it may be used for.
    scopes: Scopes,
    /// Requests per minute it may make.
    requests_per_minute: Option<u32>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it ends.
    expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to within a few seconds.
    last_used_at: Option<DateTime<Utc>>,
}

/// A new key.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiKeyCreated {
    /// The key itself; it is shown this once.
    key: String,
    /// What is listed of it.
    #[serde(flatten)]
    listed: ApiKey,
}

/// Where a list goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Make a key. A repetition with the same Idempotency-Key makes no other and shows this one again.
///
/// An organization may have 1,000 living keys, and a key may have made 50: one more is answered 409 `too_many_api_keys`.
#[utoipa::path(post, path = "/v1/api-keys", tag = "api keys", request_body = NewApiKey, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key has no second effect and the same answer")),
    responses((status = 201, body = ApiKeyCreated), (status = 403, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<AppState>,
    Extension(context): Extension<RequestContext>,
    Authenticated(principal): Authenticated,
    headers: HeaderMap,
    Json(new): Json<NewApiKey>,
) -> Result<Answer, Error> {
    let event = Event::of(&context, "api_key.create").by(caller(&principal)).within(principal.organization_id);
    match make_once(&state, &principal, &headers, new, &event).await {
        Ok(answer) => Ok(answer),
        Err(error) => Err(audit::refused(&state, event, error).await),
    }
}

/// Makes a key, or finds the answer that this call was given before.
async fn make_once(state: &AppState, principal: &Principal, headers: &HeaderMap, new: NewApiKey, event: &Event) -> Result<Answer, Error> {
    principal.require(Scope::ApiKeysWrite).map_err(Problem::from)?;
    let call = Call::new(headers, &format!("{} {}", principal.organization_id, caller(principal)), "POST /v1/api-keys", &new)?;
    let secret = secret(state, &call);
    let recorded = match begin::<Error>(&state.pool, &state.clock, call).await? {
        Begun::Recorded(answer) => answer,
        Begun::Open(open) => make(state, principal, open, new, &secret, event).await?,
    };
    let with_key = |listed: ApiKey| ApiKeyCreated { key: secret.expose().to_owned(), listed };
    recorded.map(with_key).map_err(|_| Error::Internal("a recorded answer cannot be read"))
}

/// Who acts: ids, for the scope of an Idempotency-Key and for the audit.
fn caller(principal: &Principal) -> String {
    let actor = principal.user_id().map(|id| id.to_string()).or_else(|| principal.api_key_id().map(|id| id.to_string()));
    actor.unwrap_or_default()
}

/// The secret of a new key: the same in each repetition of a call, and never recorded.
fn secret(state: &AppState, call: &Call) -> ApiKeySecret {
    match call.identity() {
        Some(identity) => ApiKeySecret::from_bytes(state.key_environment.as_str(), state.secrets.repeatable_api_key(&identity)),
        None => ApiKeySecret::generate(state.key_environment.as_str(), &state.random),
    }
}

/// Stores a new key and records the answer without its secret.
async fn make(
    state: &AppState,
    principal: &Principal,
    mut open: Open,
    new: NewApiKey,
    secret: &ApiKeySecret,
    event: &Event,
) -> Result<Answer, Error> {
    let maker = match principal.api_key_id() {
        Some(id) => store::maker(&mut open.transaction, principal.organization_id, id).await?,
        None => Maker::default(),
    };
    let listed = listed(state, principal, &maker, new)?;
    store::room(&mut open.transaction, principal, listed.created_at).await?;
    let listed = ApiKey { prefix: secret.prefix().to_owned(), last_four: secret.last_four().to_owned(), ..listed };
    store::insert(&mut open.transaction, principal, &listed, secret).await?;
    event.write(&mut open.transaction, &state.clock, &state.random).await?;
    let answer = open.finish(Answer::json(StatusCode::CREATED, &listed)).await?;
    event.log();
    Ok(answer)
}

/// What the caller wants, within the limit of the caller's own key; what is not said is as that key has it.
fn within<T: Ord>(wanted: Option<T>, limit: Option<T>, field: &'static str) -> Result<Option<T>, Error> {
    match (wanted, limit) {
        (Some(wanted), Some(limit)) if wanted > limit => Err(Error::ExceedsCaller(field, "must not exceed the caller's own key")),
        (Some(wanted), _) => Ok(Some(wanted)),
        (None, limit) => Ok(limit),
    }
}

/// The row of a new key, its rules checked.
fn listed(state: &AppState, principal: &Principal, maker: &Maker, new: NewApiKey) -> Result<ApiKey, Error> {
    let name = new.name.trim().to_owned();
    if !(1..=MAX_NAME_CHARACTERS).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(Problem::invalid_field("name", format!("must be 1 to {MAX_NAME_CHARACTERS} printable characters")).into());
    }
    let scopes = new.scopes.unwrap_or_else(Scopes::api_key_default);
    if scopes.is_empty() {
        return Err(Problem::invalid_field("scopes", "must hold at least one scope").into());
    }
    if !scopes.is_subset(&principal.scopes) {
        return Err(Error::ExceedsCaller("scopes", "must be among the caller's own"));
    }
    let now = state.clock.now();
    if new.expires_at.is_some_and(|end| end <= now) {
        return Err(Problem::invalid_field("expires_at", "must be in the future").into());
    }
    if new.requests_per_minute == Some(0) {
        return Err(Problem::invalid_field("requests_per_minute", "must be at least 1").into());
    }
    Ok(ApiKey {
        id: ApiKeyId::new(&state.clock, &state.random),
        name,
        prefix: String::new(),
        last_four: String::new(),
        scopes,
        requests_per_minute: within(new.requests_per_minute, maker.requests_per_minute, "requests_per_minute")?,
        created_at: now,
        expires_at: within(new.expires_at, maker.expires_at, "expires_at")?,
        last_used_at: None,
    })
}

/// The organization's keys, newest first.
#[utoipa::path(get, path = "/v1/api-keys", tag = "api keys", params(ListQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<ApiKey>), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<ApiKey>>, Error> {
    principal.require(Scope::ApiKeysRead).map_err(Problem::from)?;
    let after = query.cursor.map(|cursor| state.key_cursors.decode(&cursor)).transpose()?;
    Ok(axum::Json(store::page(&state.pool, &state.key_cursors, principal.organization_id, after).await?))
}

/// Revoke a key, and all keys that were made with it: they are refused everywhere within a second.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "api keys", params(("id" = ApiKeyId, Path)), security(("bearer" = [])),
    responses((status = 204), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody)))]
pub async fn delete(
    State(state): State<AppState>,
    Extension(context): Extension<RequestContext>,
    Authenticated(principal): Authenticated,
    Path(id): Path<ApiKeyId>,
) -> Result<StatusCode, Error> {
    let event = Event::of(&context, "api_key.delete").by(caller(&principal)).within(principal.organization_id);
    match revoke(&state, &principal, id, &event).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(audit::refused(&state, event, error).await),
    }
}

async fn revoke(state: &AppState, principal: &Principal, id: ApiKeyId, event: &Event) -> Result<(), Error> {
    principal.require(Scope::ApiKeysWrite).map_err(Problem::from)?;
    in_transaction!(&state.pool, |transaction| {
        store::revoke(state, transaction, principal.organization_id, id).await?;
        Ok::<_, Error>(event.write(transaction, &state.clock, &state.random).await?)
    })?;
    event.log();
    state.relay.wake();
    Ok(())
}
