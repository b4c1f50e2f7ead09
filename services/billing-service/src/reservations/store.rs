//! The SQL of holds. One lock order for all: the organization's accounts, then the reservation.

use chrono::{DateTime, Utc};
use contracts::billing::{Reservation, ReservationRequest};
use contracts::{RequestId, ReservationId};
use identity::{ApiKeyId, OrganizationId, UserId};
use money::{Audio, Ceiling};
use sha2::{Digest, Sha256};
use sqlx::{Postgres, Transaction};

use crate::error::Error;
use crate::grants::{self, Use};
use crate::ledger::{self, Balances, postings};
use crate::state::AppState;
use crate::{organizations, rates};

use super::expiry;

/// A reservation, as far as its end needs it.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its id.
    pub id: ReservationId,
    /// The request.
    pub request_id: RequestId,
    /// Who pays.
    pub organization_id: OrganizationId,
    /// The key that called.
    pub api_key_id: Option<ApiKeyId>,
    /// The person who called.
    pub user_id: Option<UserId>,
    /// The model.
    pub model: String,
    /// The provider.
    pub provider: String,
    /// The amount, in micro-units of USD.
    pub amount: i64,
    /// `held`, `settled`, `voided` or `abandoned`.
    pub state: String,
    /// The trace it was made in.
    pub trace_id: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The card it was made by; none where a version before `0139_reservation_cards` made it.
    pub rate_card_id: Option<i64>,
    /// What its organization has, under the lock that was taken with it.
    pub balances: Balances,
}

/// Check and hold in one transaction, under the lock of the organization's accounts [B-38]. The same request again gets the
/// same hold; another body under its id is a conflict [B-41]. Where the wallet does not reach, `missing` says how many micro-units it lacks.
pub async fn reserve(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    request: &ReservationRequest,
    missing: &mut i64,
) -> Result<Reservation, Error> {
    let now = state.clock.now();
    let hash = Sha256::digest(serde_json::to_vec(request).unwrap_or_default()).to_vec();
    if let Some(reservation) = again(transaction, request, &hash).await? {
        return Ok(reservation);
    }
    let card = rates::for_organization(transaction, request.organization_id, &request.model, now).await?;
    let price = card.card.price;
    // What has no rate would be free [B-32].
    if request.audio && !price.has_audio() || request.max_images > 0 && !price.prices_images(request.max_input_tokens) {
        return Err(Error::ModelNotPriced);
    }
    // A service says that there may be audio and not where.
    let audio = if request.audio { Audio::BOTH } else { Audio::NONE };
    let amount = price.upper_bound(Ceiling {
        input_tokens: request.max_input_tokens,
        output_tokens: request.max_output_tokens,
        audio,
        images: request.max_images,
    })?;
    organizations::ensure_wallet(state, transaction, request.organization_id).await?;
    let mut spendable = grants::spendable(state, transaction, request.organization_id, Use::model(&request.model)).await?.micros;
    // Another try of the same request may have come first while this one waited for the lock.
    if let Some(reservation) = again(transaction, request, &hash).await? {
        return Ok(reservation);
    }
    if amount > spendable {
        expiry::free(state, transaction, request.organization_id, amount.saturating_sub(spendable)).await?;
        spendable = grants::spendable(state, transaction, request.organization_id, Use::model(&request.model)).await?.micros;
    }
    // What is asked for must be there, to the last micro-unit and not one more [B-37, B-39].
    if amount > spendable {
        *missing = amount.saturating_sub(spendable);
        return Err(Error::InsufficientFunds);
    }
    let id = ReservationId::new(&state.clock, &state.random);
    sqlx::query!(
        "insert into reservations (id, request_id, request_hash, organization_id, api_key_id, user_id, model, provider, currency, amount_micros, state,
           trace_id, created_at, expires_at, rate_card_id) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'held', $11, $12, $13, $14)",
        id.uuid(),
        request.request_id.uuid(),
        hash,
        request.organization_id.uuid(),
        request.api_key_id.map(ApiKeyId::uuid),
        request.user_id.map(UserId::uuid),
        request.model,
        request.provider,
        card.card.currency.code(),
        amount,
        chassis::telemetry::trace_id(),
        now,
        request.expires_at,
        card.id
    )
    .execute(&mut **transaction)
    .await?;
    chassis::step!("reservation.stored");
    if amount > 0 {
        let posting = postings::reservation(request.request_id, amount, now);
        ledger::post(state, transaction, Some(request.organization_id), card.card.currency, &posting).await?;
        chassis::step!("reservation.held");
    }
    Ok(Reservation {
        id,
        request_id: request.request_id,
        currency: card.card.currency.code().to_owned(),
        amount_micros: amount,
        expires_at: request.expires_at,
    })
}

async fn again(
    transaction: &mut Transaction<'static, Postgres>,
    request: &ReservationRequest,
    hash: &[u8],
) -> Result<Option<Reservation>, Error> {
    let row = sqlx::query!(
        "select id, request_hash, currency, amount_micros, expires_at from reservations where request_id = $1",
        request.request_id.uuid()
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.request_hash != hash {
        return Err(Error::ReservationConflict);
    }
    Ok(Some(Reservation {
        id: ReservationId::from_uuid(row.id),
        request_id: request.request_id,
        currency: row.currency,
        amount_micros: row.amount_micros,
        expires_at: row.expires_at,
    }))
}

/// Finds a reservation and locks it, after the accounts of its organization.
///
/// # Errors
/// The database's.
pub async fn find(transaction: &mut Transaction<'static, Postgres>, id: ReservationId) -> Result<Option<Held>, Error> {
    let owner =
        sqlx::query_scalar!("select organization_id from reservations where id = $1", id.uuid()).fetch_optional(&mut **transaction).await?;
    let Some(owner) = owner else { return Ok(None) };
    let balances = ledger::lock(transaction, OrganizationId::from_uuid(owner)).await?;
    let row = sqlx::query!(
        "select id, request_id, organization_id, api_key_id, user_id, model, provider, amount_micros, state, trace_id, created_at, rate_card_id
         from reservations where id = $1 for no key update",
        id.uuid()
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(Some(Held {
        id: ReservationId::from_uuid(row.id),
        request_id: RequestId::from_uuid(row.request_id),
        organization_id: OrganizationId::from_uuid(row.organization_id),
        api_key_id: row.api_key_id.map(ApiKeyId::from_uuid),
        user_id: row.user_id.map(UserId::from_uuid),
        model: row.model,
        provider: row.provider,
        amount: row.amount_micros,
        state: row.state,
        trace_id: row.trace_id,
        created_at: row.created_at,
        rate_card_id: row.rate_card_id,
        balances,
    }))
}

/// Notes how a reservation ended.
///
/// # Errors
/// The database's.
pub async fn resolve(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    id: ReservationId,
    how: &str,
) -> Result<(), Error> {
    sqlx::query!("update reservations set state = $2, resolved_at = $3 where id = $1", id.uuid(), how, state.clock.now())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Gives a hold back whole. A second time changes nothing; a hold that was settled is a conflict [B-41].
pub async fn void(state: &AppState, transaction: &mut Transaction<'static, Postgres>, id: ReservationId) -> Result<(), Error> {
    let held = find(transaction, id).await?.ok_or(Error::NotFound)?;
    match held.state.as_str() {
        "voided" => Ok(()),
        "held" => {
            release(state, transaction, &held).await?;
            resolve(state, transaction, id, "voided").await
        }
        _ => Err(Error::ReservationConflict),
    }
}

/// Posts the return of a hold.
pub async fn release(state: &AppState, transaction: &mut Transaction<'static, Postgres>, held: &Held) -> Result<(), Error> {
    if held.amount > 0 {
        let posting = postings::void(held.request_id, held.amount, held.balances, state.clock.now());
        ledger::post(state, transaction, Some(held.organization_id), crate::ledger::CREDIT, &posting).await?;
        chassis::step!("reservation.returned");
        grants::follow(state, transaction, held.organization_id, &posting, Use::ANYTHING, state.clock.now()).await?;
        chassis::step!("reservation.released");
    }
    Ok(())
}
