//! A request in flight: admitted, noted, found again when its process is dead.

use std::time::Duration;

use chrono::{DateTime, Utc};
use contracts::leases::SeenLease;
use contracts::usage::UsageEvent;
use contracts::{LeaseId, RequestId, Shard};
use identity::OrganizationId;
use money::TokenUsage;
use redis::{RedisError, Value, from_redis_value};
use serde::{Deserialize, Serialize};

use crate::limit::{Counted, Limit};
use crate::scripts::{Admissions, flight_key, flights_key, lease_key, of_request};

/// A note outlives its deadline by this, for a sweeper that was away.
pub(crate) const KEPT: Duration = Duration::from_hours(72);

/// A request that would begin.
#[derive(Debug, Clone)]
pub struct Admission<'r> {
    /// Its id.
    pub request_id: RequestId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// The most that it can cost, in micro-units.
    pub cost_micros: i64,
    /// When it was admitted.
    pub now: DateTime<Utc>,
    /// When it must be over; whoever finds it afterwards settles it.
    pub deadline: DateTime<Utc>,
    /// The limits it counts for.
    pub limits: &'r [Limit],
    /// What is known about it, for whoever must settle it.
    pub note: &'r Note,
}

/// What is known about a request before its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its usage event, with nothing used yet. The lease is not known before the admission: the flight knows it.
    pub event: UsageEvent,
    /// The counters to correct.
    pub counted: Vec<Counted>,
    /// Its trace.
    pub traceparent: Option<String>,
}

/// The answer to an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may begin, and its cost is taken.
    Admitted {
        /// The lease that it is taken from.
        lease: SeenLease,
        /// Whether that one is for requests of its model alone.
        of_model: bool,
        /// Whether the lease should be filled up before it runs dry.
        low: bool,
    },
    /// A limit refuses it.
    Limited {
        /// Which, by its index.
        limit: usize,
        /// When there may be room again.
        retry_after: Duration,
    },
    /// Neither lease reaches.
    Short {
        /// The one for all requests.
        all: Shortage,
        /// The one for requests of this model.
        model: Shortage,
    },
    /// The request id is in use, or was.
    Duplicate,
}

/// A lease that does not reach, or that there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// The lease, if there is one.
    pub lease: Option<SeenLease>,
    /// What is missing in it, in micro-units: all, when there is none.
    pub missing_micros: i64,
}

/// A flight whose deadline has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// What was known about it, with its lease.
    pub note: Note,
    /// What it had used at its last checkpoint.
    pub checkpoint: Option<TokenUsage>,
    /// What it had used at the one before: nothing before the first. Not known of one by a version that did not note it.
    pub checkpoint_before: Option<TokenUsage>,
}

impl Expired {
    /// Tokens that were generated between its last two checkpoints, or until its only one: about as many may have come after the last one,
    /// which nobody counted. None where that is not known.
    #[must_use]
    pub fn last_interval_tokens(&self) -> Option<u64> {
        let (last, before) = self.checkpoint.zip(self.checkpoint_before)?;
        Some(last.total_output().saturating_sub(before.total_output()))
    }
}

/// A flight whose note cannot be read by this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The request.
    pub request_id: String,
    /// What of it.
    pub what: &'static str,
}

impl Admissions {
    /// Admits a request or says what refuses it; one round trip.
    ///
    /// # Errors
    /// When Redis does not answer. It may have been admitted all the same: settle it as a call that was not made.
    pub async fn admit(&self, admission: &Admission<'_>) -> Result<Verdict, RedisError> {
        let shard = Shard::of(admission.organization_id);
        let request = admission.request_id.to_string();
        let mut invocation = self.scripts.admit.prepare_invoke();
        invocation
            .key(lease_key(admission.organization_id, None))
            .key(lease_key(admission.organization_id, Some(&admission.note.event.model)))
            .key(flights_key(shard))
            .key(flight_key(shard, &request));
        for limit in admission.limits {
            invocation.key(&limit.key);
        }
        let deadline = admission.deadline.timestamp_millis();
        let note = serde_json::to_string(admission.note).unwrap_or_default();
        let kept = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        invocation.arg(request).arg(admission.cost_micros).arg(deadline).arg(note).arg(kept).arg(admission.now.timestamp_millis());
        for limit in admission.limits {
            invocation.arg(limit.kind()).arg(limit.most).arg(limit.amount).arg(limit.milliseconds()).arg(limit.least);
        }
        let reply: Vec<Value> = invocation.invoke_async(&mut self.redis.connection()).await?;
        verdict(&reply)
    }

    /// Keeps what a request has used so far; false when it is not in flight any more.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn checkpoint(&self, organization: OrganizationId, request: RequestId, usage: &TokenUsage) -> Result<bool, RedisError> {
        let mut invocation = self.scripts.checkpoint.prepare_invoke();
        invocation.key(of_request(organization, request)).arg(serde_json::to_string(usage).unwrap_or_default());
        invocation.invoke_async(&mut self.redis.connection()).await
    }

    /// Flights of a shard whose deadline has passed, the oldest first, after so many. One that cannot be read does not hide the others.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn expired(
        &self,
        shard: Shard,
        now: DateTime<Utc>,
        skip: usize,
        most: usize,
    ) -> Result<Vec<Result<Expired, Unreadable>>, RedisError> {
        let mut connection = self.redis.connection();
        let requests: Vec<String> = redis::cmd("ZRANGEBYSCORE")
            .arg(flights_key(shard))
            .arg("-inf")
            .arg(now.timestamp_millis())
            .arg("LIMIT")
            .arg(skip)
            .arg(most)
            .query_async(&mut connection)
            .await?;
        let mut expired = Vec::with_capacity(requests.len());
        for request in requests {
            let fields =
                redis::cmd("HMGET").arg(flight_key(shard, &request)).arg(&["note", "lease", "checkpoint", "checkpoint_before"]).to_owned();
            let [note, lease, checkpoint, before]: [Option<String>; 4] = fields.query_async(&mut connection).await?;
            let (Some(note), Some(lease)) = (note, lease) else {
                // Settled a moment ago, or its note was lost: nothing can be said about it any more.
                let () = redis::cmd("ZREM").arg(flights_key(shard)).arg(&request).query_async(&mut connection).await?;
                continue;
            };
            expired.push(
                read(&note, &lease, checkpoint.as_deref(), before.as_deref()).map_err(|what| Unreadable { request_id: request, what }),
            );
        }
        Ok(expired)
    }

    /// How many requests of a shard are in flight.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn in_flight(&self, shard: Shard) -> Result<u64, RedisError> {
        redis::cmd("ZCARD").arg(flights_key(shard)).query_async(&mut self.redis.connection()).await
    }
}

fn read(note: &str, lease: &str, checkpoint: Option<&str>, before: Option<&str>) -> Result<Expired, &'static str> {
    let mut note: Note = serde_json::from_str(note).map_err(|_| "the note")?;
    note.event.lease_id = lease.parse().map_err(|_| "the lease")?;
    let usage = |checkpoint: Option<&str>| checkpoint.map(serde_json::from_str).transpose().map_err(|_| "the checkpoint");
    Ok(Expired { note, checkpoint: usage(checkpoint)?, checkpoint_before: usage(before)? })
}

pub(crate) fn unreadable(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, "cannot be read", what.to_owned()))
}

fn verdict(reply: &[Value]) -> Result<Verdict, RedisError> {
    let text = |index: usize| from_redis_value::<String>(reply.get(index).cloned().unwrap_or(Value::Nil)).unwrap_or_default();
    let number = |index: usize| -> Result<i64, RedisError> {
        let value = reply.get(index).cloned().ok_or_else(|| unreadable("a verdict"))?;
        from_redis_value(value).map_err(|_| unreadable("a verdict"))
    };
    let lease = |index: usize| -> Result<SeenLease, RedisError> {
        let lease_id: LeaseId = text(index).parse().map_err(|_| unreadable("a lease"))?;
        Ok(SeenLease { lease_id, funded_micros: number(index + 1)? })
    };
    let shortage = |index: usize| -> Result<Shortage, RedisError> {
        let lease = if text(index).is_empty() { None } else { Some(lease(index)?) };
        Ok(Shortage { lease, missing_micros: number(index + 2)? })
    };
    match text(0).as_str() {
        "admitted" => Ok(Verdict::Admitted { lease: lease(1)?, of_model: number(4)? == 1, low: number(3)? == 1 }),
        "limited" => {
            let limit = usize::try_from(number(1)? - 1).map_err(|_| unreadable("a verdict"))?;
            Ok(Verdict::Limited { limit, retry_after: Duration::from_millis(u64::try_from(number(2)?).unwrap_or(0)) })
        }
        "short" => Ok(Verdict::Short { all: shortage(1)?, model: shortage(4)? }),
        "duplicate" => Ok(Verdict::Duplicate),
        _ => Err(unreadable("a verdict")),
    }
}
