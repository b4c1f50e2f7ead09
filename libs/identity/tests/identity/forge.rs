//! A key that signs whatever it is given, so that nothing but the check in question can refuse a token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::{Clock, Random};
use identity::jwt::SigningKey;
use identity::{AccessClaims, OrganizationId, Scopes, SessionId, UserId};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://auth.example.com";
pub const AUDIENCE: &str = "trivet";

pub struct Key {
    der: Vec<u8>,
    pair: Ed25519KeyPair,
}

impl Key {
    pub fn new() -> Self {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec();
        Self { pair: Ed25519KeyPair::from_pkcs8(&der).unwrap(), der }
    }

    pub fn public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// The same key as services use it.
    pub fn signing(&self, kid: &str) -> SigningKey {
        SigningKey::from_pkcs8(kid, &self.der)
    }

    /// A token of these texts, whatever they are.
    pub fn sign_texts(&self, header: &str, payload: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes())))
    }

    pub fn sign(&self, header: &Value, payload: &Value) -> String {
        self.sign_texts(&header.to_string(), &payload.to_string())
    }
}

pub fn header() -> Value {
    json!({"typ": "at+jwt", "alg": "EdDSA", "kid": "k1"})
}

pub fn claims(clock: &Clock) -> AccessClaims {
    let (now, random) = (clock.now().timestamp(), Random::system());
    AccessClaims {
        iss: ISSUER.into(),
        aud: AUDIENCE.into(),
        exp: now + 600,
        nbf: now,
        iat: now,
        sub: UserId::new(clock, &random),
        client_id: "trivet".into(),
        jti: "1".into(),
        org: OrganizationId::new(clock, &random),
        sid: SessionId::new(clock, &random),
        scope: Scopes::all().to_string(),
    }
}
