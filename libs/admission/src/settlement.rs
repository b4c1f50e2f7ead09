//! The end of a request, exactly once by its id.

use std::time::Duration;

use contracts::usage::{CountedBy, UsageEvent};
use contracts::{RequestId, Shard};
use identity::OrganizationId;
use redis::{InfoDict, RedisError};

use crate::flight::unreadable;
use crate::limit::{Counted, Meter};
use crate::scripts::{Admissions, flights_key, lease_key, of_request};

/// For so long the same answer is given again. After that billing-service, which knows each request for ever, is what makes a second one
/// harmless, said to be one by [`End::UsedAgain`].
pub const REMEMBERED: Duration = Duration::from_mins(5);

/// How long Redis may take to confirm that what it was told is on disk.
const TO_DISK: Duration = Duration::from_secs(2);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its usage is appended for billing-service, also when nothing was used.
    Used,
    /// As [`Used`](Self::Used), by who may have said so before and longer ago than it is [`REMEMBERED`]: what Redis does not know of it, it
    /// has forgotten either before or after, and nothing is counted or taken a second time.
    UsedAgain,
    /// The call was not made: there is nothing to record.
    NotMade,
    /// billing-service has its usage already, and has given back what was left: the note goes, and the lease takes nothing back.
    Posted,
}

/// A request that ended.
#[derive(Debug, Clone, Copy)]
pub struct Settlement<'r> {
    /// What it used.
    pub event: &'r UsageEvent,
    /// What that costs, in micro-units.
    pub price_micros: i64,
    /// Which way.
    pub end: End,
    /// What it was counted for.
    pub counted: &'r [Counted],
    /// Its trace.
    pub traceparent: Option<&'r str>,
}

/// What Redis answers to a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What the request took of its lease, in micro-units: the same each time.
    pub taken_micros: i64,
    /// Whether it was settled by this, and not before.
    pub is_first: bool,
}

/// The process of a Redis server from its start to its end. Where another one answers, what the one before was told last may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRun(String);

impl From<String> for ServerRun {
    /// By the `run_id` that the server gives itself.
    fn from(run_id: String) -> Self {
        Self(run_id)
    }
}

impl Admissions {
    /// Settles a request, once.
    ///
    /// # Errors
    /// When Redis does not answer: it may have been settled, and may be settled again.
    pub async fn settle(&self, settlement: &Settlement<'_>) -> Result<Settled, RedisError> {
        let (event, price) = (settlement.event, settlement.price_micros);
        let shard = Shard::of(event.organization_id);
        let mut invocation = self.scripts.settle.prepare_invoke();
        invocation
            .key(lease_key(event.organization_id, None))
            .key(lease_key(event.organization_id, Some(&event.model)))
            .key(flights_key(shard))
            .key(of_request(event.organization_id, event.request_id))
            .key(shard.usage_stream());
        for counted in settlement.counted {
            invocation.key(&counted.key);
        }
        let appended = if settlement.end == End::NotMade { String::new() } else { serde_json::to_string(event).unwrap_or_default() };
        invocation
            .arg(event.request_id.to_string())
            .arg(event.lease_id.to_string())
            .arg(event.reserved_micros)
            .arg(price)
            .arg(appended)
            .arg(settlement.traceparent.unwrap_or_default())
            .arg(u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX))
            .arg(how(settlement))
            .arg(sums(settlement.counted));
        for counted in settlement.counted {
            let used = counted.used(&event.usage, price);
            invocation.arg(used.saturating_sub(counted.amount)).arg(used);
        }
        let (taken_micros, is_first) = invocation.invoke_async(&mut self.redis.connection()).await?;
        Ok(Settled { taken_micros, is_first })
    }

    /// What a request that was settled a moment ago took of its lease; none when it is in flight, or not known any more.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn taken(&self, organization: OrganizationId, request: RequestId) -> Result<Option<i64>, RedisError> {
        redis::cmd("HGET").arg(of_request(organization, request)).arg("taken").query_async(&mut self.redis.connection()).await
    }

    /// Takes off a sum of money what billing-service did not charge after all: the gateway knows prices, but not what is left of a free
    /// allowance. `sum` is one of those that were appended with the usage ([`SUMS`](contracts::usage::SUMS)).
    ///
    /// # Errors
    /// When Redis does not answer: it may have been taken off.
    pub async fn lower(&self, sum: &str, micros: i64) -> Result<(), RedisError> {
        self.scripts.lower.key(sum).arg(micros).invoke_async::<i64>(&mut self.redis.connection()).await.map(drop)
    }

    /// Waits until all that this run of the server was told before is on its disk; none when it does not say so in time. A write of our own is
    /// what the wait is for: the log is written in order, and it comes after all the others. What was told to another run it says nothing of.
    ///
    /// # Errors
    /// When Redis does not answer, or keeps no log.
    pub async fn on_disk(&self) -> Result<Option<ServerRun>, RedisError> {
        let mut connection = self.redis.blocking_connection(TO_DISK).await?;
        let ((local, _), server): ((u64, u64), InfoDict) = redis::pipe()
            .cmd("INCR")
            .arg("trivet:durable")
            .ignore()
            .cmd("WAITAOF")
            .arg(1)
            .arg(0)
            .arg(u64::try_from(TO_DISK.as_millis()).unwrap_or(u64::MAX))
            .cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await?;
        let run_id: String = server.get("run_id").ok_or_else(|| unreadable("the run of the server"))?;
        Ok((local >= 1).then(|| run_id.into()))
    }
}

/// In the script's words.
fn how(settlement: &Settlement<'_>) -> &'static str {
    match settlement.end {
        End::Posted => "posted",
        End::UsedAgain => "again",
        End::Used if settlement.event.counted_by == CountedBy::Abandoned => "abandoned",
        End::Used | End::NotMade => "",
    }
}

/// The names of the sums of money as JSON, or nothing when there is none.
fn sums(counted: &[Counted]) -> String {
    let sums: Vec<&str> = counted.iter().filter(|counted| counted.meter == Meter::Spend).map(|counted| counted.key.as_str()).collect();
    if sums.is_empty() { String::new() } else { serde_json::to_string(&sums).unwrap_or_default() }
}
