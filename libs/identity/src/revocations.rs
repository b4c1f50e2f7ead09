//! What was revoked, heard from auth-service's event stream as it happens.
//!
//! A cached look-up counts only while the stream was heard within the last second; otherwise the look-up is made again. So no
//! cache outlives a revocation by more than that, also when Redis is away.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chassis::redis::Redis;
use chassis::streams::{Contact, Message, tail};
use tokio_util::sync::CancellationToken;

use crate::api_key::VerifiedApiKey;
use crate::ids::{ApiKeyId, SessionId};

/// The stream of auth-service's events.
pub const STREAM: &str = "trivet:events:auth";
/// How stale a cache may be.
const FRESH: Duration = Duration::from_secs(1);
/// How long a look-up is remembered even when nothing is revoked: limits and scopes may change.
const REMEMBER: Duration = Duration::from_secs(30);
/// Look-ups remembered at most.
const CAPACITY: usize = 50_000;
/// Access tokens live ten minutes: older revocations no longer matter.
const TOKEN_LIFE: Duration = Duration::from_mins(10);

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
    sessions: HashSet<SessionId>,
}

impl Revocations {
    /// Follows the stream until the token is cancelled, beginning with what a token still alive may have missed.
    pub async fn watch(&self, redis: &Redis, stop: &CancellationToken) {
        tail(redis, STREAM, TOKEN_LIFE, &self.0.contact, stop, |message| self.apply(&message)).await;
    }

    fn apply(&self, message: &Message) {
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
                    self.state().sessions.insert(id);
                }
            }
            _ => {}
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session was revoked, as far as is known.
    #[must_use]
    pub fn session_revoked(&self, session: SessionId) -> bool {
        self.state().sessions.contains(&session)
    }

    /// The remembered look-up of a key, if it may be relied on. The inner option is the look-up's own answer.
    #[must_use]
    pub fn remembered(&self, sha256: &str) -> Option<Option<VerifiedApiKey>> {
        if !self.0.contact.within(FRESH) {
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
