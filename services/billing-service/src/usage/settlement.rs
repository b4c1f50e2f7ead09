//! One settlement for each request: the usage row, the postings and the end of the hold in one transaction.
//!
//! A request that was given up for dead and settles after all is recorded all the same (rule of [B-43]): its `abandoned` row is
//! replaced by what was used, which comes from the wallet as far as it reaches and is owed beyond that.

use chrono::{DateTime, Utc};
use contracts::billing::{SettleRequest, Settlement};
use contracts::usage::{CountedBy, Outcome, UsageEvent};
use identity::{ApiKeyId, UserId};
use money::{Currency, TokenUsage};
use sqlx::{Postgres, Transaction};

use crate::error::Error;
use crate::ledger;
use crate::ledger::chart::Account;
use crate::ledger::postings::{self, Posting};
use crate::rates::{self, Charge};
use crate::reservations::{Held, resolve};
use crate::state::AppState;

/// What a request used, whichever way it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Tokens.
    pub usage: TokenUsage,
    /// How they were counted.
    pub counted_by: CountedBy,
    /// How the request ended.
    pub outcome: Outcome,
    /// When it was admitted: the instant that decides the rates.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
}

impl Used {
    /// As the stream tells it.
    #[must_use]
    pub const fn from_event(event: &UsageEvent) -> Self {
        Self {
            usage: event.usage,
            counted_by: event.counted_by,
            outcome: event.outcome,
            started_at: event.started_at,
            ended_at: event.ended_at,
        }
    }

    /// As a caller of the reservation API tells it.
    #[must_use]
    pub const fn from_request(request: &SettleRequest) -> Self {
        Self {
            usage: request.usage,
            counted_by: request.counted_by,
            outcome: request.outcome,
            started_at: request.started_at,
            ended_at: request.ended_at,
        }
    }
}

/// Settles a reservation that was found and locked. The same usage again is answered as before; other usage is a conflict [B-41].
///
/// # Errors
/// [`Error::ReservationConflict`], or the database's.
pub async fn settle(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    held: &Held,
    used: &Used,
) -> Result<Settlement, Error> {
    match held.state.as_str() {
        "held" | "abandoned" => {}
        "settled" => return recorded(transaction, held, used).await,
        _ => return Err(Error::ReservationConflict),
    }
    // The hold was made at our clock: a caller whose clock runs differently must not reach another card.
    let card = rates::for_organization(transaction, held.organization_id, &held.model, held.created_at).await?;
    let Charge { price, cost } = rates::charge(transaction, held.organization_id, &card, &used.usage, held.created_at).await?;
    let now = state.clock.now();
    let abandoned = held.state == "abandoned";
    let posting = if abandoned {
        postings::late_settlement(held.request_id, held.balances, price, cost, now)
    } else {
        postings::settlement(held.request_id, held.amount, held.balances, price, cost, now)
    };
    if posting.entries.iter().any(|(_, amount)| *amount != 0) {
        ledger::post(state, transaction, Some(held.organization_id), Currency::USD, &posting).await?;
    }
    note_debt(held, &posting);
    if abandoned {
        replace(state, transaction, held, used, price, cost).await?;
    } else {
        insert(state, transaction, held, used, card.id, price, cost).await?;
    }
    resolve(state, transaction, held.id, "settled").await?;
    metrics::counter!("billing_settlements_total", "outcome" => used.outcome.as_str()).increment(1);
    Ok(Settlement { request_id: held.request_id, currency: Currency::USD.code().to_owned(), price_micros: price, cost_micros: cost })
}

/// What was used beyond all that was there is somebody's business soon: debt is repaid by what returns, and nothing may [B-43].
fn note_debt(held: &Held, posting: &Posting) {
    let owed = -posting.moved(Account::Debt);
    if owed > 0 {
        metrics::counter!("billing_settlements_in_debt_total", "kind" => posting.kind.as_str()).increment(1);
        tracing::warn!(organization.id = %held.organization_id, request.id = %held.request_id, debt_micros = owed, "a settlement ended in debt");
    }
}

/// The settlement that was made, if it is of the same usage.
async fn recorded(transaction: &mut Transaction<'static, Postgres>, held: &Held, used: &Used) -> Result<Settlement, Error> {
    let row = sqlx::query!(
        "select input_tokens, output_tokens, counted_by, currency, price_micros, cost_micros from usage_events where request_id = $1",
        held.request_id.uuid()
    )
    .fetch_one(&mut **transaction)
    .await?;
    let same = row.input_tokens == count(used.usage.input_tokens)
        && row.output_tokens == count(used.usage.output_tokens)
        && row.counted_by == used.counted_by.as_str();
    if !same {
        return Err(Error::ReservationConflict);
    }
    Ok(Settlement { request_id: held.request_id, currency: row.currency, price_micros: row.price_micros, cost_micros: row.cost_micros })
}

/// The row of a request that nobody settled: nothing used, nothing charged.
///
/// # Errors
/// The database's.
pub async fn record_abandoned(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    held: &Held,
    counted_by: CountedBy,
) -> Result<(), Error> {
    let card = rates::for_organization(transaction, held.organization_id, &held.model, held.created_at).await?;
    let now = state.clock.now();
    let used = Used { usage: TokenUsage::default(), counted_by, outcome: Outcome::Deadline, started_at: held.created_at, ended_at: now };
    insert(state, transaction, held, &used, card.id, 0, 0).await
}

async fn insert(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    held: &Held,
    used: &Used,
    card: i64,
    price: i64,
    cost: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into usage_events (request_id, organization_id, api_key_id, user_id, model, provider, input_tokens, cached_input_tokens,
           cache_write_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, currency, price_micros,
           cost_micros, counted_by, outcome, trace_id, started_at, ended_at, recorded_at, cache_write_1h_tokens, images)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25)",
        held.request_id.uuid(),
        held.organization_id.uuid(),
        held.api_key_id.map(ApiKeyId::uuid),
        held.user_id.map(UserId::uuid),
        held.model,
        held.provider,
        count(used.usage.input_tokens),
        count(used.usage.cached_input_tokens),
        count(used.usage.cache_write_tokens),
        count(used.usage.output_tokens),
        count(used.usage.reasoning_tokens),
        count(used.usage.audio_input_tokens),
        count(used.usage.audio_output_tokens),
        card,
        Currency::USD.code(),
        price,
        cost,
        used.counted_by.as_str(),
        used.outcome.as_str(),
        held.trace_id,
        used.started_at,
        used.ended_at,
        state.clock.now(),
        count(used.usage.cache_write_1h_tokens),
        count(used.usage.images)
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn replace(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    held: &Held,
    used: &Used,
    price: i64,
    cost: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "update usage_events set input_tokens = $2, cached_input_tokens = $3, cache_write_tokens = $4, output_tokens = $5, reasoning_tokens = $6,
           audio_input_tokens = $7, audio_output_tokens = $8, price_micros = $9, cost_micros = $10, counted_by = $11, outcome = $12,
           started_at = $13, ended_at = $14, recorded_at = $15, cache_write_1h_tokens = $16, images = $17 where request_id = $1 and counted_by = 'abandoned'",
        held.request_id.uuid(),
        count(used.usage.input_tokens),
        count(used.usage.cached_input_tokens),
        count(used.usage.cache_write_tokens),
        count(used.usage.output_tokens),
        count(used.usage.reasoning_tokens),
        count(used.usage.audio_input_tokens),
        count(used.usage.audio_output_tokens),
        price,
        cost,
        used.counted_by.as_str(),
        used.outcome.as_str(),
        used.started_at,
        used.ended_at,
        state.clock.now(),
        count(used.usage.cache_write_1h_tokens),
        count(used.usage.images)
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn count(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
