//! Refresh tokens: each is used once, in one atomic statement; its successor is given again to who lost the answer, for ten
//! seconds; any other second use means two holders, and ends the session [I-51 to I-53].

use chassis::in_transaction;
use chassis::outbox::{self, NewEvent};
use chrono::{DateTime, TimeDelta, Utc};
use contracts::events::SessionRevoked;
use identity::{OrganizationId, Scopes, SessionId, UserId};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::refresh_token::RefreshToken;
use crate::audit::Event;
use crate::error::Error;
use crate::state::AppState;
use crate::tokens::Session;

/// A session ends after this long, however much it is used.
const ABSOLUTE_LIFE: TimeDelta = TimeDelta::days(30);
/// A refresh token ends when it is not used for this long.
const IDLE_LIFE: TimeDelta = TimeDelta::days(7);
/// How long the same successor is given again.
const GRACE: TimeDelta = TimeDelta::seconds(10);

/// What became of a token that was presented.
#[derive(Debug)]
pub enum Use {
    /// Its first use: the next token.
    First(Session, RefreshToken),
    /// Its last answer was lost: the same next token again.
    Repeated(Session, RefreshToken),
    /// Somebody else used it before: the session has ended.
    Reused(Session),
    /// It is unknown, or over, or its session or user is.
    Refused,
}

impl Use {
    /// What the audit says of a use that has an effect or gives something.
    fn event(&self, attempt: &Event) -> Option<Event> {
        let (session, outcome) = match self {
            Self::First(session, _) => (session, "success"),
            Self::Repeated(session, _) => (session, "repeated"),
            Self::Reused(session) => (session, "reuse"),
            Self::Refused => return None,
        };
        Some(attempt.clone().by(session.user).within(session.organization).ended(outcome))
    }
}

/// Begins a session with its first token.
///
/// # Errors
/// The database's; then there is neither session nor record.
pub async fn begin(state: &AppState, user: UserId, organization: OrganizationId, attempt: Event) -> Result<(Session, RefreshToken), Error> {
    let (now, event) = (state.clock.now(), attempt.by(user).within(organization));
    let session = state.tokens.first_party_session(SessionId::new(&state.clock, &state.random), user, organization);
    let token = RefreshToken::from_bytes(state.random.bytes());
    in_transaction!(&state.pool, |transaction| {
        sqlx::query!(
            "insert into sessions (id, user_id, organization_id, client_id, scope, audience, created_at, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            session.id.uuid(),
            user.uuid(),
            organization.uuid(),
            session.client_id,
            session.scopes.to_string(),
            session.audience,
            now,
            now + ABSOLUTE_LIFE
        )
        .execute(&mut **transaction)
        .await?;
        insert(transaction, session.id, &token, now).await?;
        Ok::<_, Error>(event.write(transaction, &state.clock, &state.random).await?)
    })?;
    event.log();
    Ok((session, token))
}

async fn insert(
    transaction: &mut Transaction<'static, Postgres>,
    session: SessionId,
    token: &RefreshToken,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into refresh_tokens (token_sha256, session_id, created_at, expires_at) values ($1, $2, $3, $4)",
        token.sha256(),
        session.uuid(),
        now,
        now + IDLE_LIFE
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Uses a token. A session that ends by this is ended, and everything but a refusal is recorded, when this returns.
///
/// # Errors
/// The database's; then nothing has happened.
pub async fn rotate(state: &AppState, token: &RefreshToken, attempt: &Event) -> Result<Use, Error> {
    let (used, event) = in_transaction!(&state.pool, |transaction| {
        let used = exchange(state, transaction, token).await?;
        let event = used.event(attempt);
        if let Some(event) = &event {
            event.write(transaction, &state.clock, &state.random).await?;
        }
        Ok::<_, Error>((used, event))
    })?;
    if let Some(event) = event {
        event.log();
    }
    if let Use::Reused(session) = &used {
        tracing::warn!(session.id = %session.id, "a refresh token was used twice: the session has ended");
    }
    Ok(used)
}

async fn exchange(state: &AppState, transaction: &mut Transaction<'static, Postgres>, token: &RefreshToken) -> Result<Use, Error> {
    let now = state.clock.now();
    let successor = RefreshToken::from_bytes(state.secrets.refresh_successor(token.expose()));
    let used = sqlx::query_scalar!(
        "update refresh_tokens t set used_at = $2, successor = $3 from sessions s join users u on u.id = s.user_id
         where t.token_sha256 = $1 and t.used_at is null and t.expires_at > $2 and s.id = t.session_id
           and s.revoked_at is null and s.expires_at > $2 and u.disabled_at is null
         returning s.id",
        token.sha256(),
        now,
        successor.sha256()
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(id) = used else { return again(state, transaction, token, successor, now).await };
    let session = session(state, transaction, id).await?;
    insert(transaction, session.id, &successor, now).await?;
    Ok(Use::First(session, successor))
}

/// A token that could not be used: unknown or over (no), used a moment ago (the same successor), or stolen (the end).
async fn again(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    token: &RefreshToken,
    successor: RefreshToken,
    now: DateTime<Utc>,
) -> Result<Use, Error> {
    let row = sqlx::query!(
        r#"select t.used_at, s.id, (n.used_at is not null) as "successor_used!"
           from refresh_tokens t join sessions s on s.id = t.session_id join users u on u.id = s.user_id
           left join refresh_tokens n on n.token_sha256 = t.successor
           where t.token_sha256 = $1 and s.revoked_at is null and s.expires_at > $2 and u.disabled_at is null"#,
        token.sha256(),
        now
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else { return Ok(Use::Refused) };
    let Some(used_at) = row.used_at else { return Ok(Use::Refused) };
    let session = session(state, transaction, row.id).await?;
    if now <= used_at + GRACE && !row.successor_used {
        return Ok(Use::Repeated(session, successor));
    }
    revoke(state, transaction, session.id, session.user, "reuse").await?;
    Ok(Use::Reused(session))
}

/// A session, with what was fixed when it began.
async fn session(state: &AppState, transaction: &mut Transaction<'static, Postgres>, id: Uuid) -> Result<Session, Error> {
    let row = sqlx::query!("select user_id, organization_id, client_id, scope, audience from sessions where id = $1", id)
        .fetch_one(&mut **transaction)
        .await?;
    Ok(Session {
        id: SessionId::from_uuid(id),
        user: UserId::from_uuid(row.user_id),
        organization: OrganizationId::from_uuid(row.organization_id),
        client_id: row.client_id,
        scopes: Scopes::known(row.scope.split(' ')),
        audience: row.audience.unwrap_or_else(|| state.tokens.audience().to_owned()),
    })
}

/// Ends a session and tells everybody who remembers its access tokens.
///
/// # Errors
/// The database's.
pub async fn revoke(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    session: SessionId,
    user: UserId,
    reason: &str,
) -> Result<(), Error> {
    let now = state.clock.now();
    let revoked = sqlx::query!(
        "update sessions set revoked_at = $2, revoked_reason = $3 where id = $1 and revoked_at is null returning organization_id",
        session.uuid(),
        now,
        reason
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(revoked) = revoked else { return Ok(()) };
    let event = NewEvent {
        id: state.random.uuid_v7(&state.clock),
        kind: SessionRevoked::KIND,
        organization_id: Some(revoked.organization_id),
        payload: serde_json::to_value(SessionRevoked { session_id: session, user_id: user })
            .map_err(|_| Error::Internal("an event could not be written"))?,
        occurred_at: now,
    };
    outbox::enqueue(transaction, &event).await?;
    Ok(())
}
