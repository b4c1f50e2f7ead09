//! Logging in, staying logged in, logging out.

pub mod lookup;
mod refresh_token;
pub mod retention;
mod rotation;

use axum::Extension;
use axum::extract::State;
use chassis::http::{Json, RequestContext};
use chassis::in_transaction;
use chassis::problem::ProblemBody;
use chassis::{Problem, SecretString};
use http::StatusCode;
use identity::{Actor, Authenticated, OrganizationId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::accounts::email::Email;
use crate::audit::{self, Event};
use crate::error::Error;
use crate::passwords::{Hasher, Password};
use crate::state::AppState;
use crate::tokens::Session;
use refresh_token::RefreshToken;
use rotation::Use;

/// Email and password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Email address.
    email: String,
    /// Password.
    #[schema(value_type = String)]
    password: SecretString,
}

/// A refresh token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// The newest refresh token of the session.
    #[schema(value_type = String)]
    refresh_token: SecretString,
}

/// What a client keeps (RFC 6749 section 5.1).
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenPair {
    /// Bearer token for every service, ten minutes.
    pub access_token: String,
    /// Exchange it for the next pair; each is used once.
    pub refresh_token: String,
    /// `Bearer`
    pub token_type: &'static str,
    /// Seconds until the access token ends.
    pub expires_in: i64,
}

struct User {
    id: UserId,
    organization: OrganizationId,
    hash: String,
}

/// Log in.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", request_body = Login,
    responses((status = 201, body = TokenPair), (status = 401, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(
    State(state): State<AppState>,
    Extension(context): Extension<RequestContext>,
    Json(login): Json<Login>,
) -> Result<(StatusCode, axum::Json<TokenPair>), Error> {
    let password = Password::presented(&login.password)?;
    let user = find(&state, &login.email).await?;
    let verified = state.hasher.verify(password.clone(), user.as_ref().map(|user| user.hash.clone())).await?;
    let event = Event::of(&context, "session.create");
    let Some(user) = user.filter(|_| verified) else {
        return Err(audit::refused(&state, event, Error::InvalidCredentials).await);
    };
    if Hasher::is_outdated(&user.hash) {
        rehash(&state, &user, password).await?;
    }
    let (session, refresh) = rotation::begin(&state, user.id, user.organization, event).await?;
    Ok((StatusCode::CREATED, axum::Json(pair(&state, &session, &refresh).await?)))
}

/// Exchange a refresh token for the next pair.
#[utoipa::path(post, path = "/v1/tokens/refresh", tag = "sessions", request_body = Refresh,
    responses((status = 200, body = TokenPair), (status = 401, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn refresh(
    State(state): State<AppState>,
    Extension(context): Extension<RequestContext>,
    Json(request): Json<Refresh>,
) -> Result<axum::Json<TokenPair>, Error> {
    let event = Event::of(&context, "session.refresh");
    let used = match RefreshToken::presented(&request.refresh_token) {
        Some(token) => rotation::rotate(&state, &token, &event).await?,
        None => Use::Refused,
    };
    match used {
        Use::First(session, successor) | Use::Repeated(session, successor) => Ok(axum::Json(pair(&state, &session, &successor).await?)),
        Use::Reused(_) => {
            state.relay.wake();
            Err(Error::InvalidRefreshToken)
        }
        Use::Refused => Err(audit::refused(&state, event, Error::InvalidRefreshToken).await),
    }
}

/// Log out: the session's tokens are refused from now on.
#[utoipa::path(delete, path = "/v1/sessions/current", tag = "sessions", security(("bearer" = [])),
    responses((status = 204), (status = 401, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn delete_current(
    State(state): State<AppState>,
    Extension(context): Extension<RequestContext>,
    Authenticated(principal): Authenticated,
) -> Result<StatusCode, Error> {
    let event = Event::of(&context, "session.delete").within(principal.organization_id);
    let (user_id, session_id) = match principal.actor {
        Actor::User { user_id, session_id } => (user_id, session_id),
        Actor::ApiKey { api_key_id } => {
            let problem = Problem::invalid_field("authorization", "must be a session's access token, not an API key");
            return Err(audit::refused(&state, event.by(api_key_id), problem.into()).await);
        }
    };
    let event = event.by(user_id);
    in_transaction!(&state.pool, |transaction| {
        rotation::revoke(&state, transaction, session_id, user_id, "logout").await?;
        Ok::<_, Error>(event.write(transaction, &state.clock, &state.random).await?)
    })?;
    event.log();
    state.relay.wake();
    Ok(StatusCode::NO_CONTENT)
}

/// The user of an address, with the organization they act in; an address that is none is nobody's.
async fn find(state: &AppState, email: &str) -> Result<Option<User>, Error> {
    let email = Email::parse(email).map(|email| email.as_str().to_owned()).unwrap_or_default();
    let row = sqlx::query!(
        "select u.id, u.password_hash, m.organization_id from users u join memberships m on m.user_id = u.id
         where u.email = $1 and u.disabled_at is null order by m.created_at limit 1",
        email
    )
    .fetch_optional(&state.pool)
    .await?;
    Ok(row.map(|row| User {
        id: UserId::from_uuid(row.id),
        organization: OrganizationId::from_uuid(row.organization_id),
        hash: row.password_hash,
    }))
}

async fn rehash(state: &AppState, user: &User, password: Password) -> Result<(), Error> {
    let hash = state.hasher.hash(password).await?;
    sqlx::query!("update users set password_hash = $2 where id = $1 and password_hash = $3", user.id.uuid(), hash, user.hash)
        .execute(&state.pool)
        .await?;
    Ok(())
}

async fn pair(state: &AppState, session: &Session, refresh: &RefreshToken) -> Result<TokenPair, Error> {
    let access = state.tokens.access(session).await?;
    Ok(TokenPair {
        access_token: access.token,
        refresh_token: refresh.expose().to_owned(),
        token_type: "Bearer",
        expires_in: access.expires_in,
    })
}
