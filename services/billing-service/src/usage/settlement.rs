//! One settlement for each request that has a hold of its own: the usage row, the postings and the end of the hold in one transaction.
//!
//! A request that was given up for dead and settles after all is recorded all the same (rule of [B-43]): its `abandoned` row is
//! replaced by what was used, which comes from the wallet as far as it reaches and is owed beyond that.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use contracts::RequestId;
use contracts::billing::{SettleRequest, Settlement};
use contracts::usage::{CountedBy, Outcome, UsageEvent};
use identity::OrganizationId;
use money::TokenUsage;
use sqlx::{Postgres, Transaction};

use super::overage::Bill;
use super::record::{Record, insert_all, recorded, replace};
use crate::error::Error;
use crate::grants::{self, Use};
use crate::ledger;
use crate::ledger::chart::Account;
use crate::ledger::postings::{self, Posting};
use crate::rates::{self, Charge, StoredCard};
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
        "settled" => return repeated(transaction, held, used).await,
        _ => return Err(Error::ReservationConflict),
    }
    let card = card_of(transaction, held).await?;
    let Charge { price: full, cost, .. } = rates::charge(transaction, held.organization_id, &card, &used.usage, held.created_at).await?;
    let now = state.clock.now();
    let abandoned = held.state == "abandoned";
    let available = if full > held.amount {
        let lots = grants::lots(&mut **transaction, held.organization_id, now).await?;
        grants::burn::spendable(&lots, &[], held.balances, Use::model(&held.model), now)
    } else {
        0
    };
    let bill = Bill { price: full, reserved: held.amount, held: if abandoned { 0 } else { held.amount }, available };
    let price = state.config.overage.charge(transaction, (held.organization_id, held.request_id), bill).await?;
    let posting = if abandoned {
        postings::late_settlement(held.request_id, held.balances, price, cost, now)
    } else {
        postings::settlement(held.request_id, held.amount, held.balances, price, cost, now)
    };
    // Before the posting: from that on others wait for the house's accounts.
    if abandoned {
        replace(state, transaction, held.request_id, used, (price, full - price), cost).await?;
    } else {
        let record = Record { written_off: full - price, ..record(held, used, card.id, (price, cost)) };
        insert_all(state, transaction, &[record]).await?;
    }
    if posting.entries.iter().any(|(_, amount)| *amount != 0) {
        ledger::post(state, transaction, Some(held.organization_id), crate::ledger::CREDIT, &posting).await?;
        grants::follow(state, transaction, held.organization_id, &posting, Use::model(&held.model), held.created_at).await?;
    }
    note_debt(held.organization_id, held.request_id, &posting);
    resolve(state, transaction, held.id, "settled").await?;
    metrics::counter!("billing_settlements_total", "outcome" => used.outcome.as_str()).increment(1);
    Ok(Settlement {
        request_id: held.request_id,
        currency: crate::ledger::CREDIT.code().to_owned(),
        price_micros: price,
        cost_micros: cost,
    })
}

/// What was used beyond all that was there is somebody's business soon: debt is repaid by what returns, and nothing may [B-43].
pub fn note_debt(organization: OrganizationId, request: RequestId, posting: &Posting) {
    let owed = -posting.moved(Account::Debt);
    if owed > 0 {
        metrics::counter!("billing_settlements_in_debt_total", "kind" => posting.kind.as_str()).increment(1);
        tracing::warn!(organization.id = %organization, request.id = %request, debt_micros = owed, "a settlement ended in debt");
    }
}

/// The settlement that was made, if it is of the same usage.
async fn repeated(transaction: &mut Transaction<'static, Postgres>, held: &Held, used: &Used) -> Result<Settlement, Error> {
    let before = recorded(transaction, held.request_id, used).await?.ok_or(Error::Internal("a settled hold has no usage row"))?;
    if !before.is_same {
        return Err(Error::ReservationConflict);
    }
    Ok(Settlement {
        request_id: held.request_id,
        currency: crate::ledger::CREDIT.code().to_owned(),
        price_micros: before.price,
        cost_micros: before.cost,
    })
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
    let card = card_of(transaction, held).await?;
    let now = state.clock.now();
    let used = Used { usage: TokenUsage::default(), counted_by, outcome: Outcome::Deadline, started_at: held.created_at, ended_at: now };
    insert_all(state, transaction, &[record(held, &used, card.id, (0, 0))]).await
}

/// The card by which a hold was made: usage within what was asked for never comes to more than was held.
///
/// # Errors
/// [`Error::ModelNotPriced`] when the card is gone, or the database's.
async fn card_of(transaction: &mut Transaction<'static, Postgres>, held: &Held) -> Result<StoredCard, Error> {
    match held.rate_card_id {
        // Not by time: a list that was imported since may begin up to a minute before its import, and so before the hold [B-31].
        Some(id) => rates::by_id(&mut **transaction, id).await,
        // The hold was made at our clock: a caller whose clock runs differently must not reach another card.
        None => rates::for_organization(transaction, held.organization_id, &held.model, held.created_at).await,
    }
}

fn record(held: &Held, used: &Used, rate_card_id: i64, (price, cost): (i64, i64)) -> Record {
    Record {
        request_id: held.request_id,
        organization_id: held.organization_id,
        api_key_id: held.api_key_id,
        user_id: held.user_id,
        model: held.model.clone(),
        provider: held.provider.clone(),
        used: used.clone(),
        rate_card_id,
        price,
        written_off: 0,
        cost,
        trace_id: held.trace_id.clone(),
        lease_id: None,
        tags: BTreeSet::new(),
    }
}
