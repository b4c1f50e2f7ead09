//! The private routes: for services, with their own credentials.

use axum::Extension;
use axum::extract::State;
use chassis::http::{Json, RequestContext};
use chassis::{Problem, in_transaction};
use chrono::{DateTime, Utc};
use contracts::auth::{SCOPE_API_KEYS_VERIFY, VerifyApiKeyRequest, VerifyApiKeyResponse};
use identity::jwt::{CLIENT_ASSERTION, key_id, verify};
use identity::service_tokens::{ASSERTION_SECONDS, ServiceTokenRequest, ServiceTokenResponse};
use identity::{CallingService, ServiceClaims};
use sqlx::{PgPool, Postgres, Transaction};

use crate::audit::{self, Event};
use crate::error::Error;
use crate::state::AppState;

/// Who does this key belong to?
pub async fn verify_api_key(
    State(state): State<AppState>,
    caller: CallingService,
    Json(request): Json<VerifyApiKeyRequest>,
) -> Result<axum::Json<VerifyApiKeyResponse>, Error> {
    caller.require(SCOPE_API_KEYS_VERIFY)?;
    let api_key = state.lookup(&request.key_sha256).await?;
    Ok(axum::Json(VerifyApiKeyResponse { api_key }))
}

/// A token for one service, given for an assertion of another (RFC 7523) [I-76].
pub async fn service_token(
    State(state): State<AppState>,
    Extension(context): Extension<RequestContext>,
    Json(request): Json<ServiceTokenRequest>,
) -> Result<axum::Json<ServiceTokenResponse>, Error> {
    let event = Event::of(&context, "service_token.create");
    // Whom a bad assertion names is no more than a claim: nobody is known.
    let Some(claims) = assertion(&state, &request.client_assertion) else {
        return Err(audit::refused(&state, event, Error::InvalidAssertion).await);
    };
    let event = event.by(&claims.sub);
    match give_token(&state, &claims, &request, &event).await {
        Ok(answer) => Ok(axum::Json(answer)),
        Err(error) => Err(audit::refused(&state, event, error).await),
    }
}

/// The token, when the service may have it and its assertion is new.
async fn give_token(
    state: &AppState,
    claims: &ServiceClaims,
    request: &ServiceTokenRequest,
    event: &Event,
) -> Result<ServiceTokenResponse, Error> {
    if !state.operator_grants.allow(&claims.sub, &request.audience, &request.scope) {
        return Err(Error::NotGranted);
    }
    let signed = state.tokens.service(&claims.sub, &request.audience, &request.scope).await?;
    in_transaction!(&state.pool, |transaction| {
        take_once(transaction, claims).await?;
        Ok::<_, Error>(event.write(transaction, &state.clock, &state.random).await?)
    })?;
    event.log();
    Ok(ServiceTokenResponse { access_token: signed.token, token_type: "Bearer".to_owned(), expires_in: signed.expires_in })
}

/// The claims of an assertion that is signed by the service it names, for us, and short.
fn assertion(state: &AppState, token: &str) -> Option<ServiceClaims> {
    let kid = key_id(token, CLIENT_ASSERTION).ok()?;
    let key = state.services.set().find(&kid)?;
    let claims: ServiceClaims = verify(token, &key, &kid, state.tokens.issuer(), state.clock.now()).ok()?;
    let ours = claims.sub == kid && claims.client_id == kid && claims.exp - claims.iat <= ASSERTION_SECONDS;
    ours.then_some(claims)
}

/// An assertion counts once: the second is refused by the unique index, also when both come at the same moment.
async fn take_once(transaction: &mut Transaction<'static, Postgres>, claims: &ServiceClaims) -> Result<(), Error> {
    let expires_at = DateTime::from_timestamp(claims.exp, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let taken = sqlx::query!(
        "insert into used_assertions (service, jti, expires_at) values ($1, $2, $3) on conflict do nothing",
        claims.sub,
        claims.jti,
        expires_at
    )
    .execute(&mut **transaction)
    .await?;
    if taken.rows_affected() == 1 { Ok(()) } else { Err(Error::ReplayedAssertion) }
}

/// Forgets assertions that nobody could present any more.
///
/// # Errors
/// The database's.
pub async fn prune_assertions(pool: &PgPool, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from used_assertions where expires_at < $1", now).execute(pool).await?;
    Ok(())
}

impl AppState {
    async fn lookup(&self, key_sha256: &str) -> Result<Option<identity::VerifiedApiKey>, Error> {
        let well_formed = key_sha256.len() == 64 && key_sha256.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
        if !well_formed {
            return Err(Problem::invalid_field("key_sha256", "must be 64 lowercase hexadecimal digits").into());
        }
        Ok(self.local_lookup().find(key_sha256).await?)
    }
}
