//! Events that never came [B-23]: Stripe gives up on a delivery after some days, and an endpoint can be switched off by mistake. From
//! time to time its list of events is looked through, and what is missing is put into the inbox, where it is handled like any other.
//! That is all: nothing here has an effect of its own.
//!
//! How far the list is known also says whether the service was away, as after a restore from a backup: then what it wants of Stripe may have been
//! done before, by a database that knew more than this one, and is looked for first.

use std::time::Duration;

use chassis::postgres::keep_running;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::facts::Family;
use super::object::Object;
use super::storable::{instant, without_nul};
use super::transport::Transport;
use super::turns;
use super::webhook::MAX_ID;
use crate::error::Error;
use crate::state::AppState;

/// Between looks whether it is time for a round.
const POLL: Duration = Duration::from_secs(10);
/// Stripe keeps events for so long.
const KEPT: TimeDelta = TimeDelta::days(30);
/// What is younger is on its way.
const GRACE: TimeDelta = TimeDelta::minutes(2);
/// So much is looked at again: an event may be listed later than it is dated.
const OVERLAP: TimeDelta = TimeDelta::minutes(15);
/// Pages of a round.
const PAGES: usize = 10;
/// With so many events waiting in the inbox, no more are brought.
const FULL: i64 = 1000;
/// A list that is unknown for longer was looked at by nobody meanwhile.
const AWAY: TimeDelta = TimeDelta::hours(1);
/// After the list is known again, so long what is wanted is looked for before it is done: as long as it takes to decide what became due meanwhile,
/// and to try what Stripe would not do in the first day.
const LOOKS_FIRST: TimeDelta = TimeDelta::hours(48);

/// How far the list was looked through.
#[derive(Debug)]
struct Position {
    known_until: DateTime<Utc>,
    walk_until: Option<DateTime<Utc>>,
    walk_after: Option<String>,
}

/// Looks until the token is cancelled; without a key, or with a pause of zero, never.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let (Some(stripe), pause) = (&state.stripe, state.config.stripe.gaps.0) else { return stop.cancelled().await };
    if pause.is_zero() {
        return stop.cancelled().await;
    }
    keep_running("stripe-gaps", stop, POLL, || async {
        // A walk that is not at its end goes on at the next look.
        if turns::take(state, "gaps", pause).await? && !round(state, stripe, PAGES).await?.done {
            turns::take_back(state, "gaps").await?;
        }
        Ok(())
    })
    .await;
}

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Events that were missing.
    pub found: u64,
    /// Whether the list was looked through to its end.
    pub done: bool,
}

/// One round: at most so many pages of the list, of a hundred events each.
///
/// # Errors
/// Stripe's; the database's. What was found until then is in the inbox.
pub async fn round(state: &AppState, stripe: &Transport, pages: usize) -> Result<Round, Error> {
    let now = state.clock.now();
    let Position { known_until, walk_until, mut walk_after } =
        sqlx::query_as!(Position, "select known_until, walk_until, walk_after from stripe_event_position").fetch_one(&state.pool).await?;
    let until = walk_until.unwrap_or(now - GRACE);
    let from = (known_until - OVERLAP).max(now - KEPT);
    let mut round = Round { found: 0, done: false };
    for _ in 0..pages {
        if waiting(state).await? >= FULL {
            break;
        }
        let call = Call::get("/events")
            .with("limit", 100)
            .with("created[gte]", from.timestamp())
            .with("created[lte]", until.timestamp())
            .with_some("starting_after", walk_after.as_deref());
        let page = match stripe.ask(&call).await {
            // The event that the walk was at is too old to be listed: so is all behind it.
            Err(error) if walk_after.is_some() && matches!(error.status(), Some(400 | 404)) => Value::Null,
            page => page?,
        };
        chassis::step!("gap.page_read");
        round.found += insert(state, &page).await?;
        chassis::step!("gap.stored");
        let last = Object(&page).list("data").last().and_then(|event| event.text("id"));
        walk_after = last.filter(|_| page["has_more"] == true).map(ToOwned::to_owned);
        note(state, until, walk_after.as_deref()).await?;
        chassis::step!("gap.noted");
        round.done = walk_after.is_none();
        if round.done {
            break;
        }
    }
    if round.found > 0 {
        metrics::counter!("billing_stripe_events_found_total").increment(round.found);
        tracing::warn!(events = round.found, "Stripe had events that were never delivered");
        state.stripe_events.notify_one();
    }
    Ok(round)
}

/// Whether what is wanted of Stripe may have been done before this database knew of it: it was away, or was until a short time ago. Where the
/// list was never looked through there is nothing to tell it by, and in a new installation nothing that was done before.
///
/// # Errors
/// The database's.
pub(super) async fn looks_first(state: &AppState) -> Result<bool, Error> {
    let now = state.clock.now();
    let looks = sqlx::query_scalar!(
        r#"select exists (select from stripe_event_position where known_until > 'epoch' and (known_until < $1 or look_first_until > $2)) as "looks!""#,
        away_since(state, now),
        now
    );
    Ok(looks.fetch_one(&state.pool).await?)
}

/// Who has not looked at the list since then was away: an hour before, or two rounds where those are longer.
fn away_since(state: &AppState, now: DateTime<Utc>) -> DateTime<Utc> {
    let rounds = TimeDelta::from_std(state.config.stripe.gaps.0.saturating_mul(2)).unwrap_or(TimeDelta::MAX);
    now.checked_sub_signed(rounds.max(AWAY)).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Events in the inbox that are not handled yet, as far as that matters.
async fn waiting(state: &AppState) -> Result<i64, Error> {
    let waiting = sqlx::query_scalar!(
        r#"select count(*) as "count!" from (select from stripe_events where state = 'received' limit $1) as waiting"#,
        FULL
    );
    Ok(waiting.fetch_one(&state.pool).await?)
}

/// Puts what is missing into the inbox: of our mode and account, and about something that means anything to us.
async fn insert(state: &AppState, page: &Value) -> Result<u64, Error> {
    let ours = |event: &Object<'_>| {
        let named = event.text("id").is_some_and(|id| !id.is_empty() && id.len() <= MAX_ID);
        named
            && event.0["account"].is_null()
            && event.0["livemode"] == state.config.stripe.livemode
            && event.text("type").and_then(Family::of).is_some()
    };
    // As the webhook stores them: what Postgres cannot keep must not stop the walk.
    let (events, created): (Vec<Value>, Vec<DateTime<Utc>>) = Object(page)
        .list("data")
        .filter(ours)
        .map(|event| (without_nul(event.0.clone()), instant(event.number("created").unwrap_or(0))))
        .unzip();
    let inserted = sqlx::query!(
        "insert into stripe_events (event_id, kind, livemode, api_version, payload, state, created_at, received_at, next_attempt_at)
         select event ->> 'id', event ->> 'type', (event ->> 'livemode')::boolean, event ->> 'api_version', event, 'received',
            created, $2, $2
         from unnest($1::jsonb[], $3::timestamptz[]) as found (event, created) on conflict do nothing",
        &events,
        state.clock.now(),
        &created
    )
    .execute(&state.pool)
    .await?;
    Ok(inserted.rows_affected())
}

/// The walk has come so far; with nothing behind it, it is done. That it has filled a long gap is noted by the same statement: between the two nobody
/// would look first.
async fn note(state: &AppState, until: DateTime<Utc>, after: Option<&str>) -> Result<(), Error> {
    sqlx::query!(
        "update stripe_event_position set walk_after = $2, walk_until = case when $2::text is null then null else $1::timestamptz end,
            known_until = case when $2::text is null then greatest(known_until, $1) else known_until end,
            look_first_until = case when $2::text is null and known_until > 'epoch' and known_until < $3
                then greatest(look_first_until, $4) else look_first_until end",
        until,
        after,
        away_since(state, until),
        state.clock.now() + LOOKS_FIRST
    )
    .execute(&state.pool)
    .await?;
    Ok(())
}
