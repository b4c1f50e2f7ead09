//! The copy in Redis, for the admission script: a hash of `version` and `body`, never replaced by an older one.

use std::sync::LazyLock;

use anyhow::Context;
use chassis::redis::Redis;
use contracts::entitlements::{Entitlements, redis_key};
use identity::OrganizationId;
use redis::Script;

/// How long a copy stands without being written again. It bounds how long one can be wrong that was written just as everybody's was
/// dropped; a reader that finds none asks billing-service, which writes one.
const SECONDS: u64 = 300;

static WRITE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local known = redis.call('HGET', KEYS[1], 'version')
         if known and tonumber(known) > tonumber(ARGV[1]) then return 0 end
         redis.call('HSET', KEYS[1], 'version', ARGV[1], 'body', ARGV[2])
         redis.call('EXPIRE', KEYS[1], ARGV[3])
         return 1",
    )
});

/// Writes the copy, unless a newer one stands there.
///
/// # Errors
/// Redis's.
pub async fn write(redis: &Redis, entitlements: &Entitlements) -> anyhow::Result<bool> {
    let body = serde_json::to_string(entitlements).context("entitlements cannot be written")?;
    let mut call = WRITE.prepare_invoke();
    call.key(redis_key(entitlements.organization_id)).arg(entitlements.version).arg(body).arg(SECONDS);
    let written: i64 = call.invoke_async(&mut redis.connection()).await?;
    Ok(written == 1)
}

/// Drops copies.
///
/// # Errors
/// Redis's.
pub async fn drop_all(redis: &Redis, organizations: &[OrganizationId]) -> anyhow::Result<()> {
    // One by one: the keys of different organizations are on different nodes of a cluster.
    for organization in organizations {
        let () = redis::cmd("DEL").arg(redis_key(*organization)).query_async(&mut redis.connection()).await?;
    }
    Ok(())
}
