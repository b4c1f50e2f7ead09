//! Every way a request can end badly, and the one place that turns it into a response.

use axum::response::{IntoResponse, Response};
use chassis::Problem;
use chassis::postgres::{DatabaseError, is_unavailable};
use chrono::{DateTime, Utc};
use contracts::billing::{CODE_INSUFFICIENT_FUNDS, CODE_MODEL_NOT_PRICED, CODE_RESERVATION_CONFLICT};
use http::StatusCode;
use identity::authenticator::MissingScope;

/// One variant per outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The wallet does not reach.
    #[error("the wallet does not reach")]
    InsufficientFunds,
    /// The model has no rate at this instant; it is refused, never free.
    #[error("the model has no rate")]
    ModelNotPriced,
    /// The request id was used with another body, or the reservation ended in another way.
    #[error("the reservation is in conflict")]
    ReservationConflict,
    /// Not there, or somebody else's.
    #[error("not found")]
    NotFound,
    /// The amount does not fit into 64 bits, or a rate is negative.
    #[error("{0}")]
    Price(#[from] money::PriceError),
    /// A refusal that is already in the shape of the answer.
    #[error("refused: {}", .0.code())]
    Refused(Problem),
    /// What is left of the wallet is bound in a lease that Redis has lost, or leases cannot be had right now.
    #[error("no lease can be had right now")]
    LeaseUnavailable,
    /// The database answered with an error.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// Redis answered with an error.
    #[error("Redis failed")]
    Redis(#[from] redis::RedisError),
    /// Stripe refused, or could not be asked.
    #[error("Stripe failed")]
    Stripe(#[from] crate::stripe::transport::TransportError),
    /// An object of Stripe's has not what is needed of it.
    #[error("an object of Stripe's has no readable field {0}")]
    Unreadable(&'static str),
    /// No key of Stripe's is configured.
    #[error("no key of Stripe's is configured")]
    NoStripe,
    /// Something that must not happen.
    #[error("{0}")]
    Internal(&'static str),
}

impl Error {
    /// The error with what caused it, for a log line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    /// Whether the database or Redis cannot be reached at all, so that going on with something else is no use either.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Database(error) => error.as_database_error().is_none() && is_unavailable(error),
            Self::Redis(error) => chassis::redis::is_unavailable(error),
            _ => false,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<MissingScope> for Error {
    fn from(missing: MissingScope) -> Self {
        Self::Refused(missing.into())
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

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = match &self {
            Self::InsufficientFunds => Problem::new(StatusCode::PAYMENT_REQUIRED, CODE_INSUFFICIENT_FUNDS, "The wallet does not reach"),
            Self::ModelNotPriced => Problem::new(StatusCode::NOT_FOUND, CODE_MODEL_NOT_PRICED, "The model has no rate"),
            Self::ReservationConflict => {
                Problem::conflict(CODE_RESERVATION_CONFLICT, "The reservation is in another state or for another request")
            }
            Self::NotFound => Problem::not_found(),
            Self::Price(_) => Problem::invalid_field("usage", "must come to an amount that fits"),
            Self::Refused(problem) => problem.clone(),
            Self::LeaseUnavailable => Problem::unavailable("the lease"),
            Self::NoStripe => Problem::new(StatusCode::NOT_IMPLEMENTED, "payments_not_configured", "Payments are not configured"),
            Self::Stripe(error) if !error.is_final() => Problem::unavailable("Stripe"),
            Self::Database(error) if is_unstorable(error) => {
                Problem::bad_request("invalid_text", "A text of the request cannot be stored: it must not have NUL characters")
            }
            Self::Database(error) if has_code(error, &["22008"]) => unstorable_instant(),
            Self::Database(error) if is_unavailable(error) => Problem::unavailable("the database"),
            Self::Redis(error) if chassis::redis::is_unavailable(error) => Problem::unavailable("Redis"),
            Self::Database(_) | Self::Redis(_) | Self::Stripe(_) | Self::Unreadable(_) | Self::Internal(_) => Problem::internal(&self),
        };
        problem.into_response()
    }
}

/// A character that no text of the database can have: only a request's own text can be the cause.
fn is_unstorable(error: &sqlx::Error) -> bool {
    has_code(error, &["22021", "22P05"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| codes.contains(&&*code))
}

/// The first instant that Postgres has, in seconds since 1970; its last is beyond ours.
const EARLIEST: i64 = -210_866_803_200;

fn unstorable_instant() -> Problem {
    Problem::bad_request("invalid_instant", "An instant of the request is before the first that can be stored, -4713-11-24T00:00:00Z")
}

/// Refuses instants that the database does not have, where an answer begins before it is asked.
///
/// # Errors
/// 400.
pub fn check_instants(instants: &[DateTime<Utc>]) -> Result<(), Problem> {
    if instants.iter().any(|instant| instant.timestamp() < EARLIEST) { Err(unstorable_instant()) } else { Ok(()) }
}
