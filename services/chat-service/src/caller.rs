//! Who is calling, with refusals in `OpenAI`'s shape.

use axum::extract::FromRequestParts;
use http::request::Parts;
use identity::Principal;

use crate::error::ApiError;
use crate::state::AppState;

/// The recognized caller.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        Ok(Self(state.authenticator.authenticate(&parts.headers).await?))
    }
}
