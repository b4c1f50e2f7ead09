//! The claims of our tokens (RFC 9068). All are required; a claim of another JSON type is an error, never "absent" [I-48].

use serde::{Deserialize, Serialize};

use crate::ids::{OrganizationId, SessionId, UserId};
use crate::jwt::Lifetime;

/// A user's access token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
    /// Expiry, seconds since 1970.
    pub exp: i64,
    /// Not before.
    pub nbf: i64,
    /// Issued at.
    pub iat: i64,
    /// The user.
    pub sub: UserId,
    /// The client that got the token.
    pub client_id: String,
    /// Unique id of the token.
    pub jti: String,
    /// The organization the session acts in.
    pub org: OrganizationId,
    /// The session.
    pub sid: SessionId,
    /// Permissions, separated by spaces (RFC 8693 section 4.2).
    pub scope: String,
}

/// A service's access token, or its client assertion (RFC 7523 section 3).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceClaims {
    /// Issuer; of an assertion, the service itself.
    pub iss: String,
    /// Audience: the service that is called; of an assertion, the issuer of tokens.
    pub aud: String,
    /// Expiry, seconds since 1970.
    pub exp: i64,
    /// Not before.
    pub nbf: i64,
    /// Issued at.
    pub iat: i64,
    /// The service's name.
    pub sub: String,
    /// The same.
    pub client_id: String,
    /// Unique id of the token; an assertion is taken once.
    pub jti: String,
    /// Permissions, separated by spaces.
    pub scope: String,
}

macro_rules! lifetime {
    ($($claims:ty),*) => {
        $(impl Lifetime for $claims {
            fn issued_at(&self) -> i64 {
                self.iat
            }

            fn not_before(&self) -> i64 {
                self.nbf
            }

            fn expires_at(&self) -> i64 {
                self.exp
            }
        })*
    };
}

lifetime!(AccessClaims, ServiceClaims);
