//! What is on its way in Redis, and how much room there is for it: a few commands for each shard, and one for each open lease.

use std::collections::BTreeMap;

use contracts::Shard;
use futures::{StreamExt, TryStreamExt, stream};
use identity::OrganizationId;
use redis::InfoDict;
use redis::streams::StreamRangeReply;

use super::readings::Reading;
use crate::error::Error;
use crate::state::AppState;

/// Leases whose remainder is asked for at once: they share a connection.
const AT_ONCE: usize = 64;

/// What can be admitted yet without asking for more, by currency: what is left of the open leases in Redis.
///
/// # Errors
/// The database's or Redis's.
pub async fn remainders(state: &AppState) -> Result<Vec<Reading>, Error> {
    // All of them before Redis is asked: nobody keeps a connection meanwhile.
    let open = sqlx::query!("select organization_id, model, currency from leases where state = 'open'").fetch_all(&state.pool).await?;
    let left = stream::iter(open).map(|lease| {
        Ok::<_, Error>(async move {
            let left = state.admissions.remaining(OrganizationId::from_uuid(lease.organization_id), lease.model.as_deref()).await?;
            Ok((lease.currency, left.map_or(0, |(_, micros)| micros)))
        })
    });
    let sums = left.try_buffer_unordered(AT_ONCE).try_fold(BTreeMap::new(), |mut sums, (currency, micros)| async move {
        let sum: &mut i64 = sums.entry(currency).or_default();
        *sum = sum.saturating_add(micros);
        Ok(sums)
    });
    Ok(sums.await?.into_iter().filter_map(|(currency, micros)| Reading::new("billing_lease_remaining_micros", currency, micros)).collect())
}

/// What waits on streams and what is in flight. Ages are by Redis's clock, which the ids of entries are of.
///
/// # Errors
/// Redis's.
pub async fn streams(state: &AppState) -> Result<Vec<Reading>, Error> {
    let (mut readings, mut connection) = (Vec::new(), state.redis.connection());
    let (seconds, _): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
    let (mut flights, mut oldest) = (0, None);
    let usage = Shard::all().map(|shard| (shard.usage_stream(), Some(shard)));
    let others = [contracts::events::AUTH_STREAM, contracts::entitlements::BILLING_STREAM].map(|stream| (stream.to_owned(), None));
    for (stream, shard) in usage.chain(others) {
        let (length, set_aside, first): (i64, i64, StreamRangeReply) = redis::pipe()
            .cmd("XLEN")
            .arg(&stream)
            .cmd("XLEN")
            .arg(format!("{stream}:dead"))
            .cmd("XRANGE")
            .arg(&stream)
            .arg("-")
            .arg("+")
            .arg("COUNT")
            .arg(1)
            .query_async(&mut connection)
            .await?;
        if let Some(shard) = shard {
            // What was posted is removed: what is there waits.
            readings.extend(Reading::new("stream_lag_messages", stream.clone(), length));
            let millis = first.ids.first().and_then(|entry| entry.id.split('-').next()?.parse::<i64>().ok());
            oldest = oldest.into_iter().chain(millis).min();
            flights += i64::try_from(state.admissions.in_flight(shard).await?).unwrap_or(i64::MAX);
        }
        readings.extend(Reading::new("stream_set_aside_messages", stream, set_aside));
    }
    let lag = oldest.map_or(0, |millis| (seconds - millis / 1000).max(0));
    readings.extend(Reading::new("billing_settle_lag_seconds", String::new(), lag));
    readings.extend(Reading::new("billing_flights", String::new(), flights));
    Ok(readings)
}

/// How much of its memory Redis uses. Full, it takes no settlement any more, and nobody is admitted.
///
/// # Errors
/// Redis's, also when it says nothing of its memory.
pub async fn memory(state: &AppState) -> Result<Vec<Reading>, Error> {
    let info: InfoDict = redis::cmd("INFO").arg("memory").query_async(&mut state.redis.connection()).await?;
    let number = |name| info.get::<i64>(name);
    let (used, most) = number("used_memory").zip(number("maxmemory")).ok_or(Error::Internal("Redis says nothing of its memory"))?;
    // Where there is no limit (`maxmemory 0`), it has no share of it.
    let percent = used.saturating_mul(100).checked_div(most);
    Ok(percent.and_then(|percent| Reading::new("redis_memory_used_percent", String::new(), percent)).into_iter().collect())
}
