//! The scripts, loaded by their digest when a server does not have them.

use std::sync::Arc;

use chassis::redis::Redis;
use contracts::{RequestId, Shard};
use identity::OrganizationId;
use redis::Script;

/// Leases, flights and limits in Redis; cheap to clone.
#[derive(Debug, Clone)]
pub struct Admissions {
    pub(crate) redis: Redis,
    pub(crate) scripts: Arc<Scripts>,
}

#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) admit: Script,
    pub(crate) settle: Script,
    pub(crate) checkpoint: Script,
    pub(crate) fund: Script,
    pub(crate) close: Script,
    pub(crate) forget: Script,
    pub(crate) lower: Script,
}

impl Admissions {
    /// On this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let scripts = Scripts {
            admit: Script::new(include_str!("../data/admit.lua")),
            settle: Script::new(include_str!("../data/settle.lua")),
            checkpoint: Script::new(include_str!("../data/checkpoint.lua")),
            fund: Script::new(include_str!("../data/fund.lua")),
            close: Script::new(include_str!("../data/close.lua")),
            forget: Script::new(include_str!("../data/forget.lua")),
            lower: Script::new(include_str!("../data/lower.lua")),
        };
        Self { redis, scripts: Arc::new(scripts) }
    }
}

/// Where the lease for all requests of an organization is kept, or the one for those of a model.
pub(crate) fn lease_key(organization: OrganizationId, model: Option<&str>) -> String {
    let shard = Shard::of(organization);
    model.map_or_else(|| shard.key(&format!("lease:{organization}")), |model| shard.key(&format!("lease:{organization}:{model}")))
}

pub(crate) fn flights_key(shard: Shard) -> String {
    shard.key("flights")
}

pub(crate) fn flight_key(shard: Shard, request: &str) -> String {
    shard.key(&format!("flight:{request}"))
}

pub(crate) fn instance_key(shard: Shard) -> String {
    shard.key("instance")
}

pub(crate) fn of_request(organization: OrganizationId, request: RequestId) -> String {
    flight_key(Shard::of(organization), &request.to_string())
}
