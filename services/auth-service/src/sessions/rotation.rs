//! Refresh tokens: each is used once, in one atomic statement; its successor is given again to who lost the answer, for ten
//! seconds; any other second use means two holders, and ends the session [I-51 to I-53].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::in_transaction;
use chassis::outbox::{self, NewEvent};
use chassis::{ExposeSecret, SecretString};
use chrono::{DateTime, TimeDelta, Utc};
use contracts::events::SessionRevoked;
use identity::{OrganizationId, SessionId, UserId};
use sha2::{Digest, Sha256};
use sqlx::{Postgres, Transaction};

use crate::error::Error;
use crate::state::AppState;

const PREFIX: &str = "tvr_";
/// A session ends after this long, however much it is used.
const ABSOLUTE_LIFE: TimeDelta = TimeDelta::days(30);
/// A refresh token ends when it is not used for this long.
const IDLE_LIFE: TimeDelta = TimeDelta::days(7);
/// How long the same successor is given again.
const GRACE: TimeDelta = TimeDelta::seconds(10);

/// A refresh token: 256 bits, opaque.
#[derive(Debug, Clone)]
pub struct RefreshToken(SecretString);

impl RefreshToken {
    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).into())
    }

    /// A token as a client presents it; none when it cannot be one of ours. The encoding is canonical: one token, one text.
    #[must_use]
    pub fn presented(text: &SecretString) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.expose_secret().strip_prefix(PREFIX)?).ok()?;
        bytes.try_into().ok().map(Self::from_bytes)
    }

    /// The text, for the answer that gives it out.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    fn sha256(&self) -> Vec<u8> {
        Sha256::digest(self.expose()).to_vec()
    }
}

/// What a rotation gave.
#[derive(Debug)]
pub struct Rotated {
    /// The session.
    pub session: SessionId,
    /// Its user.
    pub user: UserId,
    /// The organization it acts in.
    pub organization: OrganizationId,
    /// The next token.
    pub successor: RefreshToken,
}

/// Begins a session with its first token.
///
/// # Errors
/// The database's.
pub async fn begin(state: &AppState, user: UserId, organization: OrganizationId) -> Result<(SessionId, RefreshToken), Error> {
    let (now, session) = (state.clock.now(), SessionId::new(&state.clock, &state.random));
    let token = RefreshToken::from_bytes(state.random.bytes());
    in_transaction!(&state.pool, |transaction| {
        sqlx::query!(
            "insert into sessions (id, user_id, organization_id, created_at, expires_at) values ($1, $2, $3, $4, $5)",
            session.uuid(),
            user.uuid(),
            organization.uuid(),
            now,
            now + ABSOLUTE_LIFE
        )
        .execute(&mut **transaction)
        .await?;
        insert(transaction, session, &token, now).await
    })?;
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

/// Uses a token; none when it cannot be used. A session that ends by this is ended when this returns.
///
/// # Errors
/// The database's.
pub async fn rotate(state: &AppState, token: &RefreshToken) -> Result<Option<Rotated>, Error> {
    let now = state.clock.now();
    let successor = RefreshToken::from_bytes(state.secrets.refresh_successor(token.expose()));
    in_transaction!(&state.pool, |transaction| {
        let used = sqlx::query!(
            "update refresh_tokens t set used_at = $2, successor = $3 from sessions s join users u on u.id = s.user_id
             where t.token_sha256 = $1 and t.used_at is null and t.expires_at > $2 and s.id = t.session_id
               and s.revoked_at is null and s.expires_at > $2 and u.disabled_at is null
             returning s.id, s.user_id, s.organization_id",
            token.sha256(),
            now,
            successor.sha256()
        )
        .fetch_optional(&mut **transaction)
        .await?;
        let Some(row) = used else { return again(state, transaction, token, &successor, now).await };
        let session = SessionId::from_uuid(row.id);
        insert(transaction, session, &successor, now).await?;
        let organization = OrganizationId::from_uuid(row.organization_id);
        Ok(Some(Rotated { session, user: UserId::from_uuid(row.user_id), organization, successor: successor.clone() }))
    })
}

/// A token that could not be used: unknown or ended (no), used a moment ago (the same successor), or stolen (the end).
async fn again(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    token: &RefreshToken,
    successor: &RefreshToken,
    now: DateTime<Utc>,
) -> Result<Option<Rotated>, Error> {
    let row = sqlx::query!(
        r#"select t.used_at, s.id, s.user_id, s.organization_id, (n.used_at is not null) as "successor_used!"
           from refresh_tokens t join sessions s on s.id = t.session_id join users u on u.id = s.user_id
           left join refresh_tokens n on n.token_sha256 = t.successor
           where t.token_sha256 = $1 and s.revoked_at is null and s.expires_at > $2 and u.disabled_at is null"#,
        token.sha256(),
        now
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let Some(used_at) = row.used_at else { return Ok(None) };
    let (session, user) = (SessionId::from_uuid(row.id), UserId::from_uuid(row.user_id));
    if now <= used_at + GRACE && !row.successor_used {
        let organization = OrganizationId::from_uuid(row.organization_id);
        return Ok(Some(Rotated { session, user, organization, successor: successor.clone() }));
    }
    tracing::warn!(audit.action = "session.refresh", audit.outcome = "reuse", session.id = %session, "a refresh token was used twice: the session ends");
    revoke(state, transaction, session, user, "reuse").await?;
    Ok(None)
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
