//! Hearing of revocations on a real Redis, and what counts while nothing is heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chassis::streams::publish;
use chassis::{Clock, Random};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use identity::jwt::{ACCESS_TOKEN, SigningKey};
use identity::revocations::STREAM;
use identity::{
    AccessClaims, ApiKeyId, ApiKeyLookup, ApiKeySecret, AuthenticateError, Authenticator, IdentityConfig, KeySource, LookupUnavailable,
    OrganizationId, PresentedKey, Principal, Revocations, Scopes, SessionCheck, SessionId, UserId, VerifiedApiKey,
};
use serde_json::json;
use testkit::{TestRedis, eventually};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::forge::{AUDIENCE, ISSUER, Key, claims};

fn watch(redis: &TestRedis) -> (Revocations, DropGuard) {
    let (revocations, stop) = (Revocations::default(), CancellationToken::new());
    let (watching, redis, stopped) = (revocations.clone(), redis.redis.clone(), stop.clone());
    tokio::spawn(async move { watching.watch(&redis, &stopped).await });
    (revocations, stop.drop_guard())
}

async fn heard(revocations: &Revocations) {
    eventually("that the stream is heard", || async { revocations.heard().then_some(()) }).await;
}

async fn revoke(redis: &TestRedis, kind: &str, payload: serde_json::Value) {
    publish(&redis.redis, STREAM, &[("kind", kind), ("payload", &payload.to_string())], None).await.unwrap();
}

async fn end(redis: &TestRedis, session: SessionId) {
    revoke(redis, "session.revoked", json!({"session_id": session})).await;
}

fn session() -> SessionId {
    SessionId::new(&Clock::system(), &Random::system())
}

fn user() -> UserId {
    UserId::new(&Clock::system(), &Random::system())
}

fn key(random: &Random) -> VerifiedApiKey {
    let clock = Clock::system();
    let (api_key_id, organization_id) = (ApiKeyId::new(&clock, random), OrganizationId::new(&clock, random));
    VerifiedApiKey { api_key_id, organization_id, scopes: Scopes::all(), expires_at: None, requests_per_minute: None }
}

#[tokio::test]
async fn the_end_of_a_session_is_heard_whether_it_was_before_or_after_the_start() {
    let redis = TestRedis::start().await;
    let (before, after, open) = (session(), session(), session());
    end(&redis, before).await;
    let (revocations, _stop) = watch(&redis);
    heard(&revocations).await;
    assert_eq!(revocations.is_open(before, user()).await, Ok(false), "what a living token may have missed was not read");
    end(&redis, after).await;
    eventually("the end", || async { (revocations.is_open(after, user()).await == Ok(false)).then_some(()) }).await;
    eventually("an open session", || async { (revocations.is_open(open, user()).await == Ok(true)).then_some(()) }).await;
}

#[tokio::test]
async fn while_nothing_is_heard_no_session_counts_as_open() {
    let redis = TestRedis::start().await;
    let (revocations, _stop) = watch(&redis);
    let (over, open) = (session(), session());
    end(&redis, over).await;
    eventually("the end", || async { (revocations.is_open(over, user()).await == Ok(false)).then_some(()) }).await;
    redis.pause();
    eventually("the silence", || async { (revocations.is_open(open, user()).await == Err(LookupUnavailable)).then_some(()) }).await;
    assert_eq!(revocations.is_open(over, user()).await, Ok(false), "what is known stays known");
    redis.resume();
    eventually("the stream again", || async { (revocations.is_open(open, user()).await == Ok(true)).then_some(()) }).await;
}

#[tokio::test]
async fn the_revocation_of_a_key_and_nothing_else_makes_it_forgotten() {
    let redis = TestRedis::start().await;
    let (revocations, _stop) = watch(&redis);
    heard(&revocations).await;
    let (revoked, other) = (key(&Random::system()), key(&Random::system()));
    revocations.remember("revoked", Some(revoked.clone()), revocations.epoch());
    revocations.remember("other", Some(other.clone()), revocations.epoch());
    eventually("both", || async { revocations.remembered("revoked").and(revocations.remembered("other")) }).await;
    let epoch = revocations.epoch();
    revoke(&redis, "api_key.revoked", json!({"api_key_id": revoked.api_key_id})).await;
    eventually("the revocation", || async { (revocations.epoch() != epoch).then_some(()) }).await;
    // The other one was remembered at the same time: neither age nor silence took this one away.
    let known = || async { revocations.remembered("other").map(|other| (revocations.remembered("revoked"), other)) };
    assert_eq!(eventually("the other", known).await, (None, Some(other)));
    revocations.remember("revoked", Some(revoked), epoch);
    assert_eq!(revocations.remembered("revoked"), None, "a look-up from before the revocation was remembered after it");
}

/// What a service has, with one key for tokens and one API key.
struct Service {
    authenticator: Authenticator,
    revocations: Revocations,
    lookups: Arc<AtomicUsize>,
    signer: SigningKey,
    api_key: ApiKeySecret,
    clock: Clock,
    _stop: DropGuard,
}

struct OneKey(Vec<u8>);

#[async_trait]
impl KeySource for OneKey {
    async fn key(&self, _kid: &str) -> Result<Option<Vec<u8>>, LookupUnavailable> {
        Ok(Some(self.0.clone()))
    }
}

struct Counting(Arc<AtomicUsize>, VerifiedApiKey);

#[async_trait]
impl ApiKeyLookup for Counting {
    async fn verify(&self, _key: &PresentedKey) -> Result<Option<VerifiedApiKey>, LookupUnavailable> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Some(self.1.clone()))
    }
}

impl Service {
    fn start(redis: &TestRedis) -> Self {
        let (signing, lookups, clock) = (Key::new(), Arc::new(AtomicUsize::new(0)), Clock::system());
        let (revocations, stop) = watch(redis);
        let config = IdentityConfig { issuer: ISSUER.into(), audience: AUDIENCE.into() };
        let lookup = Counting(Arc::clone(&lookups), key(&Random::system()));
        let authenticator =
            Authenticator::new(config, Arc::new(OneKey(signing.public())), Arc::new(lookup), revocations.clone(), clock.clone());
        let api_key = ApiKeySecret::generate("test", &Random::system());
        Self { authenticator, revocations, lookups, signer: signing.signing("k1"), api_key, clock, _stop: stop }
    }

    async fn with_token(&self, claims: &AccessClaims) -> Result<Principal, AuthenticateError> {
        self.with(&self.signer.sign(ACCESS_TOKEN, claims).unwrap()).await
    }

    async fn with(&self, credential: &str) -> Result<Principal, AuthenticateError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {credential}")).unwrap());
        self.authenticator.authenticate(&headers).await
    }
}

#[tokio::test]
async fn an_access_token_is_refused_after_its_sessions_end_and_cannot_be_judged_while_nothing_is_heard() {
    let redis = TestRedis::start().await;
    let service = Service::start(&redis);
    let (open, over) = (claims(&service.clock), claims(&service.clock));
    for claims in [&open, &over] {
        eventually("that it is accepted", || async { service.with_token(claims).await.ok() }).await;
    }
    end(&redis, over.sid).await;
    eventually("the end", || async { (service.with_token(&over).await == Err(AuthenticateError::Invalid)).then_some(()) }).await;
    redis.pause();
    eventually("the silence", || async { (service.with_token(&open).await == Err(AuthenticateError::Unavailable)).then_some(()) }).await;
    assert_eq!(service.with_token(&over).await, Err(AuthenticateError::Invalid));
}

#[tokio::test]
async fn an_api_key_is_looked_up_each_time_while_nothing_is_heard() {
    let redis = TestRedis::start().await;
    let service = Service::start(&redis);
    let text = service.api_key.expose();
    heard(&service.revocations).await;
    service.with(text).await.unwrap();
    eventually("a remembered key", || async { service.revocations.remembered(&service.api_key.sha256()) }).await;
    redis.pause();
    eventually("the silence", || async { (!service.revocations.heard()).then_some(()) }).await;
    let before = service.lookups.load(Ordering::SeqCst);
    for _ in 0..3 {
        service.with(text).await.unwrap();
    }
    assert_eq!(service.lookups.load(Ordering::SeqCst), before + 3);
}
