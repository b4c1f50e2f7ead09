//! Sends what is waiting. The attempt is noted first, with the instant of the next one, and no lock is held while the receiver is asked
//! [B-82]; so a message comes at least once, always with the same id. An endpoint is asked one thing at a time, and an organization's
//! endpoints two at a time, and one that fails again and again is asked less and less often: who answers slowly, or not at all, holds up
//! nobody but itself.

use std::time::Duration;

use chassis::http::client;
use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{EndpointId, guard, secrets, signature};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::backoff;

const POLL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Endpoints that are asked at once by one replica.
const LANES: usize = 8;
/// Endpoints of one organization that are asked at once, by all replicas together: it may have more of them than there are lanes.
const OF_ONE: i64 = 2;
/// The advisory lock of claims ("hook" in ASCII): how many endpoints of an organization are busy is only known while nobody else claims.
const LOCK: i64 = 0x686f_6f6b;
/// Tries before a message is set aside: with their pauses, about three hours where its endpoint does not rest meanwhile.
const MAX_ATTEMPTS: i32 = 12;
/// Failures in a row from which on an endpoint rests as a whole: a minute at first, and twice as long after each of the next.
const RESTS_AFTER: i32 = 5;
/// So long at most, in minutes.
const LONGEST_REST: f64 = 15.0;
/// What has waited for so long when its endpoint rests again is set aside: of an endpoint that rests one message at a time is tried, and all of
/// them would have their twelve tries after months.
const LONGEST_WAIT: TimeDelta = TimeDelta::days(3);

struct Due {
    id: Uuid,
    endpoint_id: Uuid,
    message_id: String,
    payload: String,
    attempts: i32,
    url: String,
    secret_version: i32,
    former_until: Option<DateTime<Utc>>,
    busy_until: DateTime<Utc>,
    /// Until when it rests, or rested.
    rests_until: Option<DateTime<Utc>>,
}

/// Sends until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    // Each lane looks by itself: one that waits for an endpoint must not keep the others from what comes meanwhile.
    join_all((0..LANES).map(|_| {
        keep_running("webhooks", stop, POLL, || async {
            while !stop.is_cancelled() && step(state).await? {}
            Ok(())
        })
    }))
    .await;
}

/// Tries the message that has been due for longest of those whose endpoint is not being asked; false when there is none.
///
/// # Errors
/// The database's.
pub async fn step(state: &AppState) -> Result<bool, Error> {
    let Some(due) = claim(state).await? else { return Ok(false) };
    let attempt = send(state, &due).await;
    let (status, error) = match &attempt {
        Ok(status) => (Some(i32::from(*status)), (!(200..300).contains(status)).then(|| format!("it was answered with {status}"))),
        Err(error) => (None, Some(error.clone())),
    };
    let outcome = match &error {
        None => "delivered",
        Some(_) if due.attempts >= MAX_ATTEMPTS => "failed",
        Some(_) => "waiting",
    };
    if outcome == "failed" {
        metrics::counter!("webhook_deliveries_failed_total").increment(1);
    }
    let next_attempt_at = backoff::next(state, backoff::seconds(due.attempts + 1));
    in_transaction!(state.pool, |transaction| {
        // The endpoint first, as whoever deletes it does it.
        asked(state, transaction, &due, error.is_some()).await?;
        sqlx::query!(
            "update webhook_deliveries set state = $2, last_status = $3, last_error = $4, delivered_at = $5,
               next_attempt_at = greatest($6, (select rests_until from webhook_endpoints where id = endpoint_id))
             where id = $1 and state = 'waiting'",
            due.id,
            outcome,
            status,
            error,
            error.is_none().then(|| state.clock.now()),
            next_attempt_at
        )
        .execute(&mut **transaction)
        .await?;
        Ok::<_, Error>(())
    })?;
    Ok(true)
}

/// An endpoint was asked. When it fails for the fifth time in a row and from then on, all that waits for it waits until it has rested; when it
/// answers again, nothing waits any more.
async fn asked(state: &AppState, transaction: &mut Transaction<'static, Postgres>, due: &Due, failed: bool) -> Result<(), Error> {
    let rests_until = sqlx::query_scalar!(
        "update webhook_endpoints set busy_until = null, failures = case when $3 then least(failures, 1000) + 1 else 0 end,
           rests_until = case when $3 and failures + 1 >= $4
             then $5::timestamptz + interval '1 minute' * least(2 ^ least(failures + 1 - $4, 10), $6::float8) end
         where id = $1 and busy_until = $2 returning rests_until",
        due.endpoint_id,
        due.busy_until,
        failed,
        RESTS_AFTER,
        state.clock.now(),
        LONGEST_REST
    );
    let rests_until = rests_until.fetch_optional(&mut **transaction).await?.flatten();
    let answers_again = (!failed && due.rests_until.is_some()).then(|| state.clock.now());
    let Some(all_wait_until) = rests_until.or(answers_again) else { return Ok(()) };
    sqlx::query!(
        "update webhook_deliveries set next_attempt_at = $2
         where endpoint_id = $1 and state = 'waiting' and case when $3 then next_attempt_at < $2 else next_attempt_at > $2 end",
        due.endpoint_id,
        all_wait_until,
        failed
    )
    .execute(&mut **transaction)
    .await?;
    if rests_until.is_some() { set_aside(state, transaction, due).await } else { Ok(()) }
}

/// What has waited for long enough, except for what was just tried.
async fn set_aside(state: &AppState, transaction: &mut Transaction<'static, Postgres>, due: &Due) -> Result<(), Error> {
    let failed = sqlx::query!(
        "update webhook_deliveries set state = 'failed', last_error = coalesce(last_error, 'its endpoint has not answered for days')
         where endpoint_id = $1 and state = 'waiting' and id <> $2 and coalesce(replayed_at, created_at) < $3",
        due.endpoint_id,
        due.id,
        state.clock.now() - LONGEST_WAIT
    );
    let failed = failed.execute(&mut **transaction).await?.rows_affected();
    metrics::counter!("webhook_deliveries_failed_total").increment(failed);
    Ok(())
}

/// Notes an attempt, and that its endpoint is being asked, for a minute at most should this process die. Two replicas never note the
/// same one, nor two of one endpoint, nor more of an organization than may be. Where the first that are due wait for somebody who
/// is being asked, what waits is found endpoint by endpoint: a flood for one costs the others no more than a single message does.
async fn claim(state: &AppState) -> Result<Option<Due>, Error> {
    let now = state.clock.now();
    in_transaction!(state.pool, |transaction| {
        sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut **transaction).await?;
        let due = sqlx::query_as!(
            Due,
            r#"with recursive busy as (select organization_id, count(*) as asked from webhook_endpoints where busy_until > $1 group by 1),
                 due as materialized (
                   select d.endpoint_id, d.id, d.next_attempt_at from webhook_deliveries d where d.state = 'waiting' and d.next_attempt_at <= $1
                   order by d.next_attempt_at, d.id limit 16),
                 free as materialized (
                   select e.id from webhook_endpoints e left join busy b on b.organization_id = e.organization_id
                   where e.deleted_at is null and (e.busy_until is null or e.busy_until <= $1) and coalesce(b.asked, 0) < $2
                     and e.id in (select endpoint_id from due)),
                 -- Only when all of these wait for somebody who is being asked: each endpoint for which something waits, by one step of the index.
                 first_of_each as (
                   (select endpoint_id, id, next_attempt_at from webhook_deliveries
                    where state = 'waiting' and (select count(*) from due) = 16 and not exists (select from free)
                    order by endpoint_id, next_attempt_at, id limit 1)
                   union all
                   select following.endpoint_id, following.id, following.next_attempt_at from first_of_each f cross join lateral (
                     select d.endpoint_id, d.id, d.next_attempt_at from webhook_deliveries d
                     where d.state = 'waiting' and d.endpoint_id > f.endpoint_id
                     order by d.endpoint_id, d.next_attempt_at, d.id limit 1) following),
                 first as (
                   select due.* from due where due.endpoint_id in (select id from free)
                   union all select f.* from first_of_each f where f.next_attempt_at <= $1),
                 next as (
                   select f.id, e.id as endpoint_id, e.url, e.secret_version, e.former_until, e.rests_until from first f join webhook_endpoints e on e.id = f.endpoint_id
                   left join busy b on b.organization_id = e.organization_id
                   where e.deleted_at is null and (e.busy_until is null or e.busy_until <= $1) and coalesce(b.asked, 0) < $2
                   order by f.next_attempt_at, f.id limit 1 for no key update of e skip locked),
                 asked as (update webhook_endpoints e set busy_until = $1 + interval '1 minute' from next
                   where e.id = next.endpoint_id and e.deleted_at is null returning e.busy_until)
               update webhook_deliveries d set attempts = d.attempts + 1, next_attempt_at = $1 + interval '1 minute' from next, asked
               where d.id = next.id and d.state = 'waiting'
               returning d.id, d.endpoint_id, d.message_id, d.payload, d.attempts, next.url, next.secret_version,
                 next.former_until as "former_until?", next.rests_until as "rests_until?", asked.busy_until as "busy_until!""#,
            now,
            OF_ONE
        );
        Ok(due.fetch_optional(&mut **transaction).await?)
    })
}

/// One attempt: the status of the answer, or why there is none. Neither says what an address resolved to: the owner of the endpoint
/// reads it.
async fn send(state: &AppState, due: &Due) -> Result<u16, String> {
    let resolved = tokio::time::timeout(TIMEOUT, guard::resolve(&due.url, state.config.webhooks_to_private)).await;
    let target = resolved.map_err(|_| "its name was not resolved in time")?.map_err(|refused| refused.to_string())?;
    let now = state.clock.now();
    let timestamp = now.timestamp();
    let (endpoint, valid) = (EndpointId::from_uuid(due.endpoint_id), secrets::valid(due.secret_version, due.former_until, now));
    let secrets: Result<Vec<_>, Error> = valid.map(|version| signature::secret(&state.config.secret, endpoint, version)).collect();
    let signed = secrets.and_then(|secrets| signature::sign_all(&secrets, &due.message_id, timestamp, due.payload.as_bytes()));
    let signed = signed.map_err(|error| error.to_string())?;
    let client = pinned(&target).map_err(|_| "no client can be made")?;
    let request = client
        .post(target.url)
        .header("content-type", "application/json")
        .header("webhook-id", &due.message_id)
        .header("webhook-timestamp", timestamp.to_string())
        .header("webhook-signature", signed)
        .body(due.payload.clone());
    let answered =
        request.send().await.map_err(|error| if error.is_timeout() { "it did not answer in time" } else { "it could not be reached" })?;
    Ok(answered.status().as_u16())
}

/// A client for one attempt: it is pinned to the address that was checked, follows no redirect and knows no proxy.
fn pinned(target: &guard::Target) -> Result<reqwest::Client, reqwest::Error> {
    client::builder().connect_timeout(TIMEOUT).timeout(TIMEOUT).resolve(&target.host, target.address).build()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;

    use super::*;

    /// Whoever owns the name may have it mean another address a moment after it was checked.
    #[tokio::test]
    async fn the_address_that_was_checked_is_asked_whatever_its_name_means_by_now() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/hook", post(|| async { "taken" }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        // A name that means nothing anywhere (RFC 6761).
        let url = format!("http://x.invalid:{}/hook", address.port()).parse().unwrap();
        let target = guard::Target { url, host: "x.invalid".to_owned(), address };
        let answer = pinned(&target).unwrap().post(target.url).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "taken");
    }
}
