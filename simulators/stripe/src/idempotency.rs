//! `Idempotency-Key` as Stripe treats it: the first answer is given again for 24 hours, failures of Stripe's own included.

use std::collections::{HashMap, VecDeque};

use axum::http::StatusCode;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Failure;

/// How long a key is remembered, in seconds.
pub(crate) const KEPT_SECONDS: i64 = 24 * 3600;
const MAX_KEY_LENGTH: usize = 255;

/// What is known of a key.
#[derive(Debug, Clone)]
struct Entry {
    request: Bytes,
    answer: Option<(StatusCode, Value, String)>,
    since: i64,
}

/// All keys of the account.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: HashMap<String, Entry>,
    /// Since when each was taken, oldest first; one that was taken twice stands there twice.
    ages: VecDeque<(i64, String)>,
}

/// A key whose request was answered, as it is kept in a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    key: String,
    request: String,
    status: u16,
    body: Value,
    request_id: String,
    since: i64,
}

/// What to do with a request.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Do it: it is the first.
    Execute,
    /// Answer as the first was answered; the last is the first one's request id.
    Replay(StatusCode, Value, String),
}

impl Keys {
    /// All that were answered. What is at work when the process ends was never answered, and its key is free again.
    pub(crate) fn remember(&self) -> Vec<Kept> {
        let answered = self.known.iter().filter_map(|(key, entry)| {
            let (status, body, request_id) = entry.answer.clone()?;
            let request = String::from_utf8_lossy(&entry.request).into_owned();
            Some(Kept { key: key.clone(), request, status: status.as_u16(), body, request_id, since: entry.since })
        });
        answered.collect()
    }

    /// Takes them up again.
    pub(crate) fn recall(&mut self, mut kept: Vec<Kept>) {
        kept.sort_by_key(|kept| kept.since);
        for Kept { key, request, status, body, request_id, since } in kept {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            self.ages.push_back((since, key.clone()));
            self.known.insert(key, Entry { request: request.into(), answer: Some((status, body, request_id)), since });
        }
    }

    /// Takes a key for a request (its method, path and body).
    pub(crate) fn begin(&mut self, key: &str, request: &Bytes, now: i64) -> Result<Turn, Failure> {
        if key.len() > MAX_KEY_LENGTH {
            return Err(Failure::invalid(format!("Idempotency keys must be at most {MAX_KEY_LENGTH} characters long.")));
        }
        self.forget(now);
        match self.known.get(key) {
            None => {
                self.ages.push_back((now, key.to_owned()));
                self.known.insert(key.to_owned(), Entry { request: request.clone(), answer: None, since: now });
                Ok(Turn::Execute)
            }
            Some(entry) if entry.request != request => Err(Failure::idempotency(key)),
            Some(Entry { answer: Some((status, body, id)), .. }) => Ok(Turn::Replay(*status, body.clone(), id.clone())),
            Some(_) => Err(Failure::in_progress(key)),
        }
    }

    fn forget(&mut self, now: i64) {
        while let Some((_, key)) = self.ages.pop_front_if(|(since, _)| *since + KEPT_SECONDS <= now) {
            if self.known.get(&key).is_some_and(|entry| entry.since + KEPT_SECONDS <= now) {
                self.known.remove(&key);
            }
        }
    }

    /// Keeps the answer, unless the request was refused before anything was done for it: then the key is free again.
    pub(crate) fn end(&mut self, key: &str, status: StatusCode, body: &Value, request_id: &str) {
        let executed = status.is_success() || status.is_server_error() || status == StatusCode::PAYMENT_REQUIRED;
        if !executed {
            self.known.remove(key);
        } else if let Some(entry) = self.known.get_mut(key) {
            entry.answer = Some((status, body.clone(), request_id.to_owned()));
        }
    }
}
