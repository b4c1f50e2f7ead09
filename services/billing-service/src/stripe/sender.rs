//! Sends what we want of Stripe (`intents`): of one subject in order, with the key that was stored with the wish [B-63, B-67]. No lock
//! is held while Stripe is asked [B-82]; a try is noted before it is made, so that replicas leave each other's alone. What is refused again and
//! again is set aside for an operator, and what waits behind it goes on waiting [B-22].

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chassis::telemetry::continue_from;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use identity::OrganizationId;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use super::facts::invoice;
use super::operations::{self, Look};
use super::transport::{Transport, TransportError};
use super::{backoff, gaps};
use crate::error::Error;
use crate::intents;
use crate::state::AppState;
use crate::subscriptions::store;

const POLL: Duration = Duration::from_secs(1);
/// Wishes that are sent at once: an answer of Stripe's takes a third of a second, and its pace allows more than three in one.
const LANES: usize = 8;
/// Stripe forgets keys after a day: a key that is older may have had its effect without a trace [B-64].
const KEY_LIFE: TimeDelta = TimeDelta::hours(23);
/// So many equal answers of its servers under one key are the recording of the first [B-65].
const SAME_FAILURES: i32 = 3;
/// Refusals after which a wish is set aside. They are at least an hour apart: somebody had a day to mend what is refused, and the last tries are
/// made under new keys, to which no recording of the first answer is played back.
const MOST_REFUSALS: i32 = 26;

/// A wish that is to be sent now.
#[derive(Debug)]
pub struct Due {
    id: Uuid,
    /// What is to be done.
    pub kind: String,
    /// What it is about.
    subject: String,
    /// Whose it is, if it is a customer's.
    pub organization: Option<OrganizationId>,
    /// The operation, however often it is tried and under which key.
    pub operation: String,
    key_number: i32,
    /// What to send.
    pub payload: Value,
    /// How often it was tried, this try included.
    pub attempts: i32,
    last_status: Option<i32>,
    same_failures: i32,
    /// How often it was refused.
    refusals: i32,
    /// Whether this try is looking at what earlier ones did, or putting that away: what is refused then is not the wish.
    pub looks: bool,
    /// Whether it was found done by a look: a database that was restored does not know what the one before it did, nor what was told of it.
    was_done: bool,
    created_at: DateTime<Utc>,
    /// The trace in which it was wanted.
    traceparent: Option<String>,
}

impl Due {
    /// Whether Stripe refused it before.
    #[must_use]
    pub const fn was_refused(&self) -> bool {
        self.refusals > 0
    }

    /// The key of this try.
    #[must_use]
    pub fn key(&self) -> String {
        if self.is_under_new_key() { format!("{}-again{}", self.operation, self.key_number) } else { self.operation.clone() }
    }

    /// Whether an earlier key no longer tells what was done.
    #[must_use]
    pub const fn is_under_new_key(&self) -> bool {
        self.key_number > 0
    }
}

/// Sends until the token is cancelled, several wishes at once; without a key nothing is ever sent.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let Some(stripe) = &state.stripe else { return stop.cancelled().await };
    let lane = |_| async {
        keep_running("stripe-sender", stop, POLL, || async {
            while !stop.is_cancelled() && step(state, stripe).await? {}
            Ok(())
        })
        .await;
    };
    join_all((0..LANES).map(lane)).await;
}

/// Tries the next wish that is due; false when none is.
///
/// # Errors
/// The database's.
pub async fn step(state: &AppState, stripe: &Transport) -> Result<bool, Error> {
    let Some(mut due) = claim(state).await? else { return Ok(false) };
    chassis::step!("intent.claimed");
    let span = tracing::info_span!(parent: None, "intent", otel.name = due.kind, otel.kind = "internal", intent.id = %due.id);
    if let Some(wanted_in) = &due.traceparent {
        continue_from(&span, wanted_in);
    }
    match perform_and_catch_up(state, stripe, &mut due).instrument(span).await {
        Ok(external_id) => {
            chassis::step!("intent.performed");
            mark_sent(state, &due, external_id.as_deref()).await?;
            chassis::step!("intent.marked");
        }
        Err(error) if error.is_outage() => return Err(error),
        Err(error) => postpone(state, &due, &error).await?,
    }
    Ok(true)
}

/// Takes the oldest wish that is due and first of its subject, where one that is set aside counts: what comes after it may need it. Only what
/// takes an invoice away waits for nobody, and nobody for it: it sees to its own charge, and may take as long as a debit of a bank account. The comparison of pairs says the same as one of positions, which the index in the order of positions could answer too: by reading all that
/// waits, for each wish that is looked at.
async fn claim(state: &AppState) -> Result<Option<Due>, Error> {
    let now = state.clock.now();
    let row = sqlx::query!(
        "update intents set attempts = attempts + 1, next_attempt_at = $2 where id = (
           select id from intents i where sent_at is null and parked_at is null and next_attempt_at <= $1
             and (kind = 'subscription.void' or not exists (select from intents before where before.subject = i.subject
               and (before.subject, before.position) < (i.subject, i.position) and before.sent_at is null and before.kind <> 'subscription.void'
               offset 0))
           order by position limit 1 for update skip locked)
         returning id, kind, subject, organization_id, idempotency_key, key_number, payload, attempts, last_status, same_failures, refusals, created_at, traceparent",
        now,
        now + intents::TRY
    )
    .fetch_optional(&state.pool)
    .await?;
    Ok(row.map(|row| Due {
        id: row.id,
        kind: row.kind,
        subject: row.subject,
        organization: row.organization_id.map(OrganizationId::from_uuid),
        operation: row.idempotency_key,
        key_number: row.key_number,
        payload: row.payload,
        attempts: row.attempts,
        last_status: row.last_status,
        same_failures: row.same_failures,
        refusals: row.refusals,
        looks: false,
        was_done: false,
        created_at: row.created_at,
        traceparent: row.traceparent,
    }))
}

/// Notes that it was done, and what was made. A charge that was given up meanwhile has made its invoice all the same: who takes that away
/// looks again, and is not done before it knows of it.
async fn mark_sent(state: &AppState, due: &Due, external_id: Option<&str>) -> Result<(), Error> {
    let now = state.clock.now();
    in_transaction!(state.pool, |transaction| {
        let was_sent =
            sqlx::query_scalar!(r#"select sent_at is not null as "was_sent!" from intents where id = $1 for no key update"#, due.id);
        if was_sent.fetch_one(&mut **transaction).await? && external_id.is_some() {
            sqlx::query!(
                "update intents set sent_at = null, next_attempt_at = $3 where subject = $1 and kind = 'subscription.void' and payload ->> 'charged' = $2",
                due.subject,
                due.operation,
                now
            )
            .execute(&mut **transaction)
            .await?;
        }
        sqlx::query!(
            "update intents i set sent_at = $2, external_id = $3, parked_at = null where id = $1
               and not exists (select from intents charge where i.kind = 'subscription.void' and charge.idempotency_key = i.payload ->> 'charged'
                 and charge.external_id <> coalesce($3, ''))",
            due.id,
            now,
            external_id
        )
        .execute(&mut **transaction)
        .await?;
        Ok(())
    })
}

/// Has the effect once, and catches up with what Stripe told of it before it was wanted here. Not after it is marked: nobody would come back to it.
async fn perform_and_catch_up(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<Option<String>, Error> {
    let made = perform(state, stripe, due).await?;
    if let Some(made) = made.as_deref().filter(|_| due.kind == "subscription.charge") {
        // It was done, whatever comes of this.
        due.looks = true;
        invoice::catch_up(state, stripe, made, due.was_done).await?;
        due.looks = false;
    }
    Ok(made)
}

/// Has the effect once. When the customer is gone at Stripe, there is nobody to collect from under the stored key: once more, from the
/// customer that takes its place.
async fn perform(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<Option<String>, Error> {
    let customer = operations::customer_of_try(state, due).await?;
    match perform_for_customer(state, stripe, due).await {
        Err(Error::Stripe(error))
            if error.code() == Some("resource_missing")
                && operations::replaces_customer(state, stripe, due, customer.as_deref()).await? =>
        {
            use_new_key(state, due).await?;
            due.looks = false;
            operations::perform(state, stripe, due).await
        }
        performed => performed,
    }
}

async fn use_new_key(state: &AppState, due: &mut Due) -> Result<(), Error> {
    due.key_number += 1;
    sqlx::query!("update intents set key_number = $2, same_failures = 0 where id = $1", due.id, due.key_number)
        .execute(&state.pool)
        .await?;
    Ok(())
}

/// Under the stored key as long as that tells this operation from others; after that by looking first. After a restore the key alone does not tell:
/// Stripe may have forgotten it since it was used, or remember it for what was decided then.
async fn perform_for_customer(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<Option<String>, Error> {
    if let Some(dropped) = operations::drop_top_up(state, stripe, due).await? {
        return Ok(dropped.paid);
    }
    let old = due.attempts > 1 && state.clock.now() - due.created_at > KEY_LIFE;
    if old || due.same_failures >= SAME_FAILURES {
        return look_and_perform(state, stripe, due).await;
    }
    if !operations::can_be_found(&due.kind) {
        return operations::perform(state, stripe, due).await;
    }
    if gaps::looks_first(state).await? {
        match operations::look_up(state, stripe, due).await? {
            Look::Made(found) => {
                due.was_done = true;
                return Ok(Some(found));
            }
            // The key would play back the making of what is gone.
            Look::PutAway => use_new_key(state, due).await?,
            // The key is as good as ever: with another one a try whose answer is lost would not be known again.
            Look::Nothing => {}
        }
    }
    match operations::perform(state, stripe, due).await {
        Err(Error::Stripe(error)) if error.status() == Some(400) && error.code() == Some("idempotency_error") => {
            look_and_perform(state, stripe, due).await
        }
        performed => performed,
    }
}

/// The stored key no longer tells what was done: it is looked for, and done under a new one if it was not.
async fn look_and_perform(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<Option<String>, Error> {
    if let Look::Made(found) = operations::look_up(state, stripe, due).await? {
        due.was_done = true;
        return Ok(Some(found));
    }
    use_new_key(state, due).await?;
    operations::perform(state, stripe, due).await
}

async fn postpone(state: &AppState, due: &Due, error: &Error) -> Result<(), Error> {
    tracing::warn!(intent.id = %due.id, intent.kind = due.kind, attempts = due.attempts, error.message = error.chain(), "Stripe did not do what was wanted; it will be tried again");
    metrics::counter!("billing_stripe_intents_failed_total", "kind" => due.kind.clone()).increment(1);
    let stripe = match error {
        Error::Stripe(error) => Some(error),
        _ => None,
    };
    let status = stripe.and_then(TransportError::status).map(i32::from);
    let same = if status.is_some_and(|status| status >= 500) && status == due.last_status {
        due.same_failures + 1
    } else {
        i32::from(status.is_some_and(|status| status >= 500))
    };
    let next = stripe.map_or_else(|| backoff::next(state, backoff::LONGEST_SECONDS), |error| backoff::after(state, due.attempts, error));
    let is_refused = !due.looks && is_refused(error);
    let refusals = due.refusals + i32::from(is_refused);
    sqlx::query!(
        "update intents set next_attempt_at = $2, last_status = $3, same_failures = $4, refusals = $5 where id = $1",
        due.id,
        next,
        status,
        same,
        refusals
    )
    .execute(&state.pool)
    .await?;
    if is_refused && refusals >= MOST_REFUSALS && !operations::is_taken_in_time(&due.kind) {
        set_aside(state, due, error).await?;
    }
    Ok(())
}

/// Whether it is the wish that cannot be had, and not Stripe, or our key, which is mended for all wishes at once.
fn is_refused(error: &Error) -> bool {
    match error {
        Error::Stripe(error) => error.is_final() && !matches!(error.status(), Some(401 | 403)),
        Error::Internal(_) | Error::Unreadable(_) => true,
        _ => false,
    }
}

async fn set_aside(state: &AppState, due: &Due, error: &Error) -> Result<(), Error> {
    let (now, failed) = (state.clock.now(), operations::failed_charge(state, due).await?);
    let is_parked = in_transaction!(state.pool, |transaction| {
        // The subscription first, as whoever gives up a charge does it.
        if let Some((organization, subscription, _)) = &failed {
            store::locked(transaction, *organization, *subscription).await?;
        }
        let parked = sqlx::query!("update intents set parked_at = $2 where id = $1 and sent_at is null and parked_at is null", due.id, now);
        if parked.execute(&mut **transaction).await?.rows_affected() == 0 {
            return Ok(false);
        }
        // Nobody has a plan for nothing because Stripe does not want its charge: as with a card that is refused, there is a time to mend it.
        if let Some((organization, subscription, command)) = &failed {
            store::apply(state, transaction, *organization, *subscription, command, "stripe").await?;
        }
        Ok::<_, Error>(true)
    })?;
    if is_parked {
        metrics::counter!("billing_stripe_intents_parked_total", "kind" => due.kind.clone()).increment(1);
        tracing::error!(intent.id = %due.id, intent.kind = due.kind, refusals = due.refusals + 1, error.message = error.chain(), "Stripe refuses what is wanted: it was set aside");
    }
    Ok(())
}
