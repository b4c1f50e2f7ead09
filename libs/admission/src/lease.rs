//! The remainder of a lease in Redis, as billing-service fills and ends it.

use chrono::{DateTime, Utc};
use contracts::{LeaseId, Shard};
use identity::OrganizationId;
use redis::RedisError;

use crate::flight::{KEPT, unreadable};
use crate::scripts::{Admissions, instance_key, lease_key};

/// Which data a shard's server holds: one that has lost everything is another instance, and its leases cannot be filled again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance(pub String);

/// A lease to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Funding<'l> {
    /// Whose.
    pub organization_id: OrganizationId,
    /// The model whose requests alone it pays for; none for all.
    pub model: Option<&'l str>,
    /// The lease.
    pub lease_id: LeaseId,
    /// Rises with each lease of the organization.
    pub epoch: i64,
    /// All that was put into it, in micro-units.
    pub funded_micros: i64,
    /// Below this remainder a request asks for more in passing.
    pub low_micros: i64,
    /// From when on it admits nothing.
    pub until: DateTime<Utc>,
    /// Where it was opened.
    pub instance: &'l Instance,
    /// Whether it may be made if it is not there: only while nothing can have been taken from it.
    pub is_new: bool,
}

/// What became of a funding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Funded {
    /// The lease holds what it should.
    Yes,
    /// It was closed.
    Closed,
    /// There is a later one.
    Superseded {
        /// Its epoch.
        epoch: i64,
    },
    /// The server does not have it any more: what was taken from it cannot be known here.
    Lost,
}

/// A lease that was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// What was left, in micro-units; none when the server does not know the lease.
    pub remaining_micros: Option<i64>,
    /// Milliseconds of the epoch after which no request of it is in flight.
    pub last_deadline_ms: i64,
}

impl Admissions {
    /// The shard's instance, named when it has none: `fresh` must be new.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn instance(&self, shard: Shard, fresh: &str) -> Result<Instance, RedisError> {
        let (name,): (String,) = redis::pipe()
            .cmd("SET")
            .arg(instance_key(shard))
            .arg(fresh)
            .arg("NX")
            .ignore()
            .cmd("GET")
            .arg(instance_key(shard))
            .query_async(&mut self.redis.connection())
            .await?;
        Ok(Instance(name))
    }

    /// Fills a lease.
    ///
    /// # Errors
    /// When Redis does not answer; it may be repeated.
    pub async fn fund(&self, funding: &Funding<'_>) -> Result<Funded, RedisError> {
        let mut invocation = self.scripts.fund.prepare_invoke();
        invocation
            .key(lease_key(funding.organization_id, funding.model))
            .key(instance_key(Shard::of(funding.organization_id)))
            .arg(funding.lease_id.to_string())
            .arg(funding.epoch)
            .arg(funding.funded_micros)
            .arg(funding.low_micros)
            .arg(&funding.instance.0)
            .arg(i32::from(funding.is_new))
            .arg(funding.until.timestamp_millis());
        let reply: String = invocation.invoke_async(&mut self.redis.connection()).await?;
        match reply.as_str() {
            "funded" => Ok(Funded::Yes),
            "closed" => Ok(Funded::Closed),
            "lost" => Ok(Funded::Lost),
            other => {
                let epoch = other.strip_prefix("superseded:").and_then(|epoch| epoch.parse().ok());
                epoch.map(|epoch| Funded::Superseded { epoch }).ok_or_else(|| unreadable("a funding"))
            }
        }
    }

    /// Ends a lease: nothing is admitted on it any more. Repeated, it answers the same until [`forget`](Self::forget).
    ///
    /// # Errors
    /// When Redis does not answer; it may be repeated.
    pub async fn close(&self, organization: OrganizationId, model: Option<&str>, lease: LeaseId) -> Result<Closed, RedisError> {
        let mut invocation = self.scripts.close.prepare_invoke();
        invocation.key(lease_key(organization, model)).arg(lease.to_string());
        let (remaining_micros, last_deadline_ms) = invocation.invoke_async(&mut self.redis.connection()).await?;
        Ok(Closed { remaining_micros, last_deadline_ms })
    }

    /// Drops the memory of a closed lease, once what was left of it is back in the wallet. An organization that has no lease any more is forgotten
    /// as late as its requests in flight are.
    ///
    /// # Errors
    /// When Redis does not answer; it may be repeated.
    pub async fn forget(&self, organization: OrganizationId, model: Option<&str>, lease: LeaseId) -> Result<(), RedisError> {
        let mut invocation = self.scripts.forget.prepare_invoke();
        invocation.key(lease_key(organization, model)).arg(lease.to_string()).arg(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
        invocation.invoke_async(&mut self.redis.connection()).await
    }

    /// The open lease for all requests, or for those of a model, and what is left of it, for whoever wants to know and not to spend.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn remaining(&self, organization: OrganizationId, model: Option<&str>) -> Result<Option<(LeaseId, i64)>, RedisError> {
        let command = redis::cmd("HMGET").arg(lease_key(organization, model)).arg("id").arg("remaining").to_owned();
        let (id, remaining): (Option<String>, Option<i64>) = command.query_async(&mut self.redis.connection()).await?;
        Ok(id.and_then(|id| id.parse().ok()).zip(remaining))
    }
}
