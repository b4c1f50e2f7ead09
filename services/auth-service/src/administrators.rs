//! `POST /v1/administrators`: the first administrator of an installation, made once, with a token that only its operator can print
//! [I-77].

use axum::Extension;
use axum::extract::State;
use chassis::http::{Json, RequestContext};
use chassis::problem::ProblemBody;
use chassis::{Clock, ExposeSecret, Random, SecretString, in_transaction};
use chrono::TimeDelta;
use http::StatusCode;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use sqlx::{PgPool, Postgres, Transaction};
use utoipa::ToSchema;

use crate::accounts::email::Email;
use crate::accounts::{self, AccountCreated, NewPerson};
use crate::audit::{self, Event};
use crate::error::Error;
use crate::passwords::Password;
use crate::state::AppState;

const PREFIX: &str = "tvb_";
const LIFE: TimeDelta = TimeDelta::hours(1);

/// The first administrator.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAdministrator {
    /// What `auth-service admin bootstrap` printed.
    #[schema(value_type = String)]
    bootstrap_token: SecretString,
    /// Email address.
    #[schema(example = "ada@example.com", max_length = 254)]
    email: String,
    /// At least 15 characters of any kind.
    #[schema(value_type = String, min_length = 15)]
    password: SecretString,
    /// What the person is called.
    #[schema(max_length = 200)]
    name: String,
}

/// Make the first administrator.
#[utoipa::path(post, path = "/v1/administrators", tag = "accounts", request_body = NewAdministrator,
    responses((status = 201, body = AccountCreated), (status = 401, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(
    State(state): State<AppState>,
    Extension(context): Extension<RequestContext>,
    Json(new): Json<NewAdministrator>,
) -> Result<(StatusCode, axum::Json<AccountCreated>), Error> {
    let (email, name) = (Email::parse(&new.email)?, accounts::name(&new.name)?);
    let hash = state.hasher.hash(Password::for_new_account(&new.password)?).await?;
    let person = NewPerson { email: &email, name: &name, hash: &hash };
    let token = Sha256::digest(new.bootstrap_token.expose_secret()).to_vec();
    let event = Event::of(&context, "administrator.create");
    let made = in_transaction!(&state.pool, |transaction| {
        take_token(transaction, &token, &state.clock).await?;
        let user = accounts::insert(&state, transaction, &person).await?.ok_or(Error::EmailTaken)?;
        sqlx::query!("update users set administrator = true where id = $1", user.uuid()).execute(&mut **transaction).await?;
        let event = event.clone().by(user);
        event.write(transaction, &state.clock, &state.random).await?;
        Ok::<_, Error>(event)
    });
    match made {
        Ok(event) => event.log(),
        Err(error) => return Err(audit::refused(&state, event, error).await),
    }
    state.relay.wake();
    Ok((StatusCode::CREATED, axum::Json(AccountCreated::new(&email))))
}

/// Uses a token up, in one statement: of many tries at once one succeeds.
async fn take_token(transaction: &mut Transaction<'static, Postgres>, token: &[u8], clock: &Clock) -> Result<(), Error> {
    let used = sqlx::query!(
        "update bootstrap_tokens set used_at = $2 where token_sha256 = $1 and used_at is null and expires_at > $2",
        token,
        clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    if used.rows_affected() == 1 { Ok(()) } else { Err(Error::InvalidBootstrapToken) }
}

/// Makes the token, for an hour, while no administrator has been made with one. An earlier token that was not used is void.
///
/// # Errors
/// When there is an administrator; the database's.
pub async fn bootstrap(pool: &PgPool, clock: &Clock, random: &Random) -> anyhow::Result<String> {
    let token = format!("{PREFIX}{}", base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, random.bytes::<32>()));
    let event = Event::of_operator("administrator.bootstrap");
    let inserted: Result<u64, sqlx::Error> = in_transaction!(pool, |transaction| {
        sqlx::query!("update bootstrap_tokens set expires_at = $1 where used_at is null and expires_at > $1", clock.now())
            .execute(&mut **transaction)
            .await?;
        let row = sqlx::query!(
            "insert into bootstrap_tokens (token_sha256, expires_at) select $1, $2
             where not exists (select from bootstrap_tokens where used_at is not null)",
            Sha256::digest(&token).to_vec(),
            clock.now() + LIFE
        )
        .execute(&mut **transaction)
        .await?;
        if row.rows_affected() == 1 {
            event.write(transaction, clock, random).await?;
        }
        Ok(row.rows_affected())
    });
    if inserted? == 0 {
        event.ended("refused").refuse(pool, clock, random).await;
        anyhow::bail!("there is an administrator already; bootstrap works once");
    }
    event.log();
    Ok(token)
}
