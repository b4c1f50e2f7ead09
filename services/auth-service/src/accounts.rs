//! `POST /v1/accounts`: signing up.

pub mod email;

use axum::Extension;
use axum::extract::State;
use chassis::http::{Json, RequestContext};
use chassis::idempotency::{Answer, Begun, Call, begin};
use chassis::outbox::{self, NewEvent};
use chassis::problem::ProblemBody;
use chassis::{Problem, SecretString};
use contracts::events::OrganizationCreated;
use http::{HeaderMap, StatusCode};
use identity::{OrganizationId, UserId};
use serde::{Deserialize, Serialize};
use sqlx::{Postgres, Transaction};
use utoipa::ToSchema;

use crate::audit::Event;
use crate::error::Error;
use crate::passwords::Password;
use crate::state::AppState;
use email::Email;

const MAX_NAME_CHARACTERS: usize = 200;

/// A new account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
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

/// The answer, alike whether the address was free or taken [I-23].
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountCreated {
    /// The address as it was understood.
    email: String,
}

impl AccountCreated {
    /// The answer for an address.
    #[must_use]
    pub fn new(email: &Email) -> Self {
        Self { email: email.as_str().to_owned() }
    }
}

/// A person whose rules are checked and whose password is hashed.
#[derive(Debug, Clone, Copy)]
pub struct NewPerson<'p> {
    /// Their address.
    pub email: &'p Email,
    /// What they are called.
    pub name: &'p str,
    /// The PHC string of their password.
    pub hash: &'p str,
}

/// What is compared when an Idempotency-Key is used again: never the password, not even its digest.
#[derive(Serialize)]
struct Fingerprint<'f> {
    email: &'f str,
    name: &'f str,
}

/// Sign up: a user and their personal organization.
#[utoipa::path(post, path = "/v1/accounts", tag = "accounts", request_body = NewAccount,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key has no second effect and the same answer")),
    responses((status = 201, body = AccountCreated), (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(
    State(state): State<AppState>,
    Extension(context): Extension<RequestContext>,
    headers: HeaderMap,
    Json(new): Json<NewAccount>,
) -> Result<Answer, Error> {
    let email = Email::parse(&new.email)?;
    let name = name(&new.name)?;
    let password = Password::for_new_account(&new.password)?;
    let caller = context.client_ip.to_string();
    let call = Call::new(&headers, &caller, "POST /v1/accounts", &Fingerprint { email: email.as_str(), name: &name })?;
    // Hashed before anything is looked up, so that free and taken addresses cost the same.
    let hash = state.hasher.hash(password).await?;
    let mut open = match begin::<Error>(&state.pool, &state.clock, call).await? {
        Begun::Recorded(answer) => return Ok(answer),
        Begun::Open(open) => open,
    };
    // That the address is taken shows in nothing.
    insert(&state, &mut open.transaction, &NewPerson { email: &email, name: &name, hash: &hash }).await?;
    let event = Event::of(&context, "account.create").ended("accepted");
    event.write(&mut open.transaction, &state.clock, &state.random).await?;
    let answer = open.finish(Answer::json(StatusCode::CREATED, &AccountCreated::new(&email))).await?;
    event.log();
    state.relay.wake();
    Ok(answer)
}

/// A name as it is stored.
///
/// # Errors
/// 422 naming the field.
pub fn name(text: &str) -> Result<String, Problem> {
    let name = text.trim();
    let fits = (1..=MAX_NAME_CHARACTERS).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if fits {
        Ok(name.to_owned())
    } else {
        Err(Problem::invalid_field("name", format!("must be 1 to {MAX_NAME_CHARACTERS} printable characters")))
    }
}

/// User, organization, membership and event in one transaction; a taken address changes nothing and gives none.
///
/// # Errors
/// The database's.
pub async fn insert(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    person: &NewPerson<'_>,
) -> Result<Option<UserId>, Error> {
    let NewPerson { email, name, hash } = *person;
    let (now, user, organization) =
        (state.clock.now(), UserId::new(&state.clock, &state.random), OrganizationId::new(&state.clock, &state.random));
    let inserted = sqlx::query!(
        "insert into users (id, email, name, password_hash, created_at) values ($1, $2, $3, $4, $5) on conflict on constraint users_email_key do nothing",
        user.uuid(),
        email.as_str(),
        name,
        hash,
        now
    )
    .execute(&mut **transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(None);
    }
    sqlx::query!("insert into organizations (id, name, created_at) values ($1, $2, $3)", organization.uuid(), name, now)
        .execute(&mut **transaction)
        .await?;
    sqlx::query!(
        "insert into memberships (organization_id, user_id, role, created_at) values ($1, $2, 'owner', $3)",
        organization.uuid(),
        user.uuid(),
        now
    )
    .execute(&mut **transaction)
    .await?;
    let created = OrganizationCreated {
        organization_id: organization,
        name: name.to_owned(),
        owner_id: user,
        billing_email: email.as_str().to_owned(),
        created_at: now,
    };
    let event = NewEvent {
        id: state.random.uuid_v7(&state.clock),
        kind: OrganizationCreated::KIND,
        organization_id: Some(organization.uuid()),
        payload: serde_json::to_value(&created).map_err(|_| Error::Internal("an event could not be written"))?,
        occurred_at: now,
    };
    outbox::enqueue(transaction, &event).await?;
    Ok(Some(user))
}
