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
    /// A key was asked for that may do more than its maker.
    #[error("the scopes exceed the caller's")]
    ScopesExceedCaller,
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
            Self::ScopesExceedCaller | Self::NotFound | Self::Refused(_) => "refused",
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
            Self::ScopesExceedCaller => Problem::forbidden().field("scopes", "must be among the caller's own"),
            Self::NotFound => Problem::not_found(),
            Self::Refused(problem) => problem.clone(),
            Self::Database(error) if is_unavailable(error) => Problem::unavailable("the database"),
            Self::Database(_) | Self::Internal(_) => Problem::internal(&self),
        };
        problem.into_response()
    }
}
