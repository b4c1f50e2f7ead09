//! What others need to verify our tokens: `/.well-known/jwks.json` and what exists so far of `OpenID` discovery.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use identity::JwkSet;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::state::AppState;

/// How long keys may be cached; the next key is published for longer than this before it signs.
const CACHE: &str = "public, max-age=300";

/// What exists so far (`OpenID` Connect Discovery 1.0 section 3); endpoints that are not there are not listed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Configuration {
    issuer: String,
    jwks_uri: String,
    token_endpoint_auth_signing_alg_values_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
}

/// The public keys of tokens.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "discovery", responses((status = 200, body = JwkSet)))]
pub async fn jwks(State(state): State<AppState>) -> Result<Response, Error> {
    Ok(([(header::CACHE_CONTROL, CACHE)], Json(state.tokens.published().await?)).into_response())
}

/// The discovery document.
#[utoipa::path(get, path = "/.well-known/openid-configuration", tag = "discovery", responses((status = 200, body = Configuration)))]
pub async fn configuration(State(state): State<AppState>) -> Response {
    let issuer = state.tokens.issuer().to_owned();
    let configuration = Configuration {
        jwks_uri: format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/')),
        issuer,
        token_endpoint_auth_signing_alg_values_supported: ["EdDSA"],
        id_token_signing_alg_values_supported: ["EdDSA"],
        subject_types_supported: ["public"],
    };
    ([(header::CACHE_CONTROL, CACHE)], Json(configuration)).into_response()
}
