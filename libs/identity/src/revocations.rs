//! What was revoked, heard from auth-service's event stream as it happens.
//!
//! A cached look-up counts only while the stream was heard within the last second; otherwise the look-up is made again. A session
//! counts as open only while the stream was heard; otherwise nobody can say, which is 503. So nothing outlives a revocation by
//! more than that, also when Redis is away.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chassis::redis::Redis;
use chassis::streams::{Contact, Message, tail};
use tokio_util::sync::CancellationToken;

use crate::api_key::{LookupUnavailable, VerifiedApiKey};
use crate::ids::{ApiKeyId, SessionId, UserId};
use crate::sessions::SessionCheck;

/// The stream of auth-service's events.
pub const STREAM: &str = "trivet:events:auth";
/// How stale a cache may be.
const FRESH: Duration = Duration::from_secs(1);
/// How long a look-up is remembered even when nothing is revoked: limits and scopes may change.
const REMEMBER: Duration = Duration::from_secs(30);
/// Look-ups remembered at most.
const CAPACITY: usize = 50_000;
/// Access tokens live ten minutes, and clocks differ by less than one: older revocations no longer matter.
const TOKEN_LIFE: Duration = Duration::from_mins(11);

/// Remembers look-ups and revocations; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Revocations(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    contact: Contact,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<String, (Instant, Option<VerifiedApiKey>)>,
    /// Counts revocations of keys: a look-up that began before one is not remembered.
    epoch: u64,
    sessions: EndedSessions,
}

/// Sessions that ended, for as long as a token of theirs may be alive.
#[derive(Debug, Default)]
struct EndedSessions {
    heard: HashMap<SessionId, Instant>,
    /// The same, oldest first.
    order: VecDeque<(Instant, SessionId)>,
}

impl EndedSessions {
    fn add(&mut self, session: SessionId, now: Instant) {
        self.forget(now);
        self.heard.insert(session, now);
        self.order.push_back((now, session));
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, session)) = self.order.pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= TOKEN_LIFE) {
            // Events may come twice: the later one counts.
            if self.heard.get(&session) == Some(&at) {
                self.heard.remove(&session);
            }
        }
    }
}

impl Revocations {
    /// Follows the stream until the token is cancelled, beginning with what a token still alive may have missed.
    pub async fn watch(&self, redis: &Redis, stop: &CancellationToken) {
        tail(redis, STREAM, TOKEN_LIFE, &self.0.contact, stop, |message| self.apply(&message, Instant::now())).await;
    }

    fn apply(&self, message: &Message, now: Instant) {
        let payload: serde_json::Value = serde_json::from_str(message.field("payload")).unwrap_or_default();
        let text = |field: &str| payload[field].as_str().unwrap_or_default();
        match message.field("kind") {
            "api_key.revoked" => {
                if let Ok(id) = text("api_key_id").parse::<ApiKeyId>() {
                    let mut state = self.state();
                    state.epoch += 1;
                    state.keys.retain(|_, (_, known)| known.as_ref().is_none_or(|key| key.api_key_id != id));
                }
            }
            "session.revoked" => {
                if let Ok(id) = text("session_id").parse() {
                    self.state().sessions.add(id, now);
                }
            }
            _ => {}
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether everything that was revoked until a second ago is known.
    #[must_use]
    pub fn heard(&self) -> bool {
        self.0.contact.within(FRESH)
    }

    /// Whether the session was revoked, as far as is known.
    #[must_use]
    pub fn session_revoked(&self, session: SessionId) -> bool {
        self.state().sessions.heard.contains_key(&session)
    }

    /// The remembered look-up of a key, if it may be relied on. The inner option is the look-up's own answer.
    #[must_use]
    pub fn remembered(&self, sha256: &str) -> Option<Option<VerifiedApiKey>> {
        if !self.heard() {
            return None;
        }
        let state = self.state();
        state.keys.get(sha256).filter(|(at, _)| at.elapsed() < REMEMBER).map(|(_, known)| known.clone())
    }

    /// The present epoch; to be taken before a look-up.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.state().epoch
    }

    /// Remembers a look-up that began in this epoch.
    pub fn remember(&self, sha256: &str, known: Option<VerifiedApiKey>, epoch: u64) {
        let mut state = self.state();
        // Unknown keys are not remembered: a flood of them must not push out the known ones.
        if state.epoch != epoch || known.is_none() {
            return;
        }
        if state.keys.len() >= CAPACITY {
            state.keys.retain(|_, (at, _)| at.elapsed() < REMEMBER);
        }
        if state.keys.len() < CAPACITY {
            state.keys.insert(sha256.to_owned(), (Instant::now(), known));
        }
    }
}

#[async_trait]
impl SessionCheck for Revocations {
    async fn is_open(&self, session: SessionId, _user: UserId) -> Result<bool, LookupUnavailable> {
        // Asked before the set is looked at: what was heard in between is in it.
        let heard = self.heard();
        if self.session_revoked(session) {
            return Ok(false);
        }
        if heard { Ok(true) } else { Err(LookupUnavailable) }
    }
}

#[cfg(test)]
mod tests {
    use chassis::{Clock, Random};

    use super::*;

    fn ended(session: SessionId) -> Message {
        let fields = [("kind", "session.revoked".to_owned()), ("payload", format!(r#"{{"session_id":"{session}"}}"#))];
        Message { id: "1-0".into(), fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
    }

    fn sessions<const N: usize>() -> [SessionId; N] {
        let (clock, random) = (Clock::system(), Random::seeded(1));
        std::array::from_fn(|_| SessionId::new(&clock, &random))
    }

    #[test]
    fn an_ended_session_is_forgotten_when_no_token_of_it_can_be_alive() {
        let (revocations, start) = (Revocations::default(), Instant::now());
        let [first, second, third] = sessions();
        revocations.apply(&ended(first), start);
        revocations.apply(&ended(second), start + TOKEN_LIFE / 2);
        revocations.apply(&ended(third), start + TOKEN_LIFE);
        let known = [first, second, third].map(|session| revocations.session_revoked(session));
        assert_eq!(known, [false, true, true]);
        assert_eq!(revocations.state().sessions.order.len(), 2, "the queue grows");
    }

    #[test]
    fn an_event_that_comes_again_keeps_the_session_ended_for_longer() {
        let (revocations, start) = (Revocations::default(), Instant::now());
        let [repeated, other] = sessions();
        revocations.apply(&ended(repeated), start);
        revocations.apply(&ended(repeated), start + TOKEN_LIFE / 2);
        revocations.apply(&ended(other), start + TOKEN_LIFE);
        assert!(revocations.session_revoked(repeated));
        revocations.apply(&ended(other), start + TOKEN_LIFE * 2);
        assert!(!revocations.session_revoked(repeated));
    }

    #[tokio::test]
    async fn before_the_stream_was_heard_only_an_ended_session_can_be_judged() {
        let (revocations, [open, over]) = (Revocations::default(), sessions());
        let user = UserId::new(&Clock::system(), &Random::seeded(2));
        revocations.apply(&ended(over), Instant::now());
        assert_eq!(revocations.is_open(over, user).await, Ok(false));
        assert_eq!(revocations.is_open(open, user).await, Err(LookupUnavailable));
    }
}
