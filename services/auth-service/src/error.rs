//! Every way a request can end badly, and the one place that turns it into a response.

use axum::response::{IntoResponse, Response};
use chassis::Problem;
use chassis::postgres::{DatabaseError, is_unavailable};
use http::StatusCode;

/// One variant per outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Email and password do not belong together; the same for every cause [I-21].
    #[error("the credentials are wrong")]
    InvalidCredentials,
    /// The refresh token cannot be used.
    #[error("the refresh token is not valid")]
    InvalidRefreshToken,
    /// The bootstrap token is unknown, used or over.
    #[error("the bootstrap token is not valid")]
    InvalidBootstrapToken,
    /// The address has an account. Said only to who holds a bootstrap token.
    #[error("the email address is taken")]
    EmailTaken,
    /// All places for hashing are taken.
    #[error("too many passwords are being hashed")]
    HasherBusy,
    /// A key was asked for that may do more than its maker, or for longer: the field, and its rule.
    #[error("the field {0} exceeds the caller's own")]
    ExceedsCaller(&'static str, &'static str),
    /// The key that would be made under this `Idempotency-Key` was made before, so long ago that its answer is forgotten.
    #[error("the Idempotency-Key was used before")]
    IdempotencyKeyReused,
    /// There are as many living keys as there may be: whose they are, and how many those may be.
    #[error("{0} has {1} living API keys and may have no more")]
    TooManyApiKeys(&'static str, i64),
    /// The assertion is not one of a service that we know.
    #[error("the assertion is not valid")]
    InvalidAssertion,
    /// The assertion was presented before.
    #[error("the assertion was presented before")]
    ReplayedAssertion,
    /// The service may not have a token for that.
    #[error("the service may not do that")]
    NotGranted,
    /// Not there, or somebody else's.
    #[error("not found")]
    NotFound,
    /// A refusal that is already in the shape of the answer.
    #[error("refused: {}", .0.code())]
    Refused(Problem),
    /// The database answered with an error.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// Something that must not happen.
    #[error("{0}")]
    Internal(&'static str),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl DatabaseError for Error {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl Error {
    /// What an audit row says of it.
    #[must_use]
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::InvalidCredentials => "invalid_credentials",
            Self::InvalidRefreshToken => "invalid_refresh_token",
            Self::InvalidBootstrapToken => "invalid_bootstrap_token",
            Self::EmailTaken => "email_taken",
            Self::HasherBusy | Self::Database(_) => "unavailable",
            Self::ExceedsCaller(..) => "exceeds_caller",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::TooManyApiKeys(..) => "too_many_api_keys",
            Self::InvalidAssertion => "invalid_assertion",
            Self::ReplayedAssertion => "replayed_assertion",
            Self::NotGranted => "not_granted",
            Self::NotFound => "not_found",
            Self::Refused(_) => "refused",
            Self::Internal(_) => "failed",
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = match &self {
            Self::InvalidCredentials => Problem::new(StatusCode::UNAUTHORIZED, "invalid_credentials", "Email or password is wrong"),
            Self::InvalidRefreshToken => {
                Problem::new(StatusCode::UNAUTHORIZED, "invalid_refresh_token", "The refresh token cannot be used")
            }
            Self::InvalidBootstrapToken => {
                Problem::new(StatusCode::UNAUTHORIZED, "invalid_bootstrap_token", "The bootstrap token cannot be used")
            }
            Self::EmailTaken => {
                Problem::conflict("email_taken", "The address has an account").field("email", "must be one without an account")
            }
            Self::HasherBusy => Problem::unavailable("a free place for hashing"),
            Self::ExceedsCaller(field, rule) => Problem::forbidden().field(*field, *rule),
            // As the chassis says it while it still has the record.
            Self::IdempotencyKeyReused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The Idempotency-Key was used with another request",
            )
            .detail("the key that was made under it cannot be shown any more")
            .field("Idempotency-Key", "must be new for a new request"),
            Self::TooManyApiKeys(whose, most) => Problem::conflict("too_many_api_keys", "There are as many API keys as there may be")
                .detail(format!("{whose} may have {most} that live")),
            Self::InvalidAssertion | Self::ReplayedAssertion => Problem::unauthorized(),
            Self::NotGranted => Problem::forbidden(),
            Self::NotFound => Problem::not_found(),
            Self::Refused(problem) => problem.clone(),
            Self::Database(error) if is_unavailable(error) => Problem::unavailable("the database"),
            Self::Database(_) | Self::Internal(_) => Problem::internal(&self),
        };
        problem.into_response()
    }
}
