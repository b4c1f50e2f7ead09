//! Who is calling: tokens, API keys, principals and scopes; the same answer in every service.
//!
//! Access tokens are verified locally; API keys by their checksum and a look-up at auth-service that is cached only while
//! revocations are being heard, as access tokens are accepted only while they are. What is not certain is refused, and what cannot
//! be known right now is 503, never 401.

pub mod api_key;
pub mod authenticator;
pub mod claims;
pub mod extract;
mod fetched;
pub mod ids;
pub mod jwks;
pub mod jwt;
mod provider;
pub mod revocations;
pub mod scopes;
pub mod service_tokens;
pub mod sessions;

pub use api_key::{ApiKeyLookup, ApiKeySecret, LookupUnavailable, PresentedKey, VerifiedApiKey};
pub use authenticator::{Actor, AuthenticateError, Authenticator, Principal};
pub use claims::{AccessClaims, ServiceClaims};
pub use extract::{Authenticated, CallingService, ServiceAuthenticator};
pub use ids::{ApiKeyId, OrganizationId, SessionId, UserId};
pub use jwks::{JwkSet, KeySource, RemoteKeys};
pub use revocations::Revocations;
pub use scopes::{Scope, Scopes};
pub use service_tokens::ServiceTokens;
pub use sessions::SessionCheck;

chassis::settings! {
    /// How callers are recognized.
    pub struct IdentityConfig {
        /// The `iss` of tokens: the public URL of auth-service.
        pub issuer: String = required "TRIVET_ISSUER",
        /// The `aud` of users' access tokens.
        pub audience: String = default "TRIVET_AUDIENCE" "trivet",
    }
}

chassis::settings! {
    /// How this service reaches auth-service, and proves who it is.
    pub struct AuthClientConfig {
        /// Private base URL of auth-service, such as `http://auth-service:9001`.
        pub auth_url: String = required "TRIVET_AUTH_URL",
        /// Ed25519 private key of this service (PKCS#8 PEM); auth-service knows the public one.
        pub service_key: chassis::SecretString = required "TRIVET_SERVICE_KEY",
    }
}
