//! What requests used that were paid from leases: rows, postings and what the leases still hold, a batch in one transaction. A request
//! that was recorded before changes nothing; one that was given up for dead and reports after all pays the difference, or has it back [B-43].

use std::collections::{BTreeMap, HashMap, HashSet};

use chassis::in_transaction;
use contracts::billing::Settlement;
use contracts::usage::{CountedBy, UsageEvent};
use contracts::{LeaseId, RequestId};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::overage::Bill;
use super::record::{Record, Recorded, insert_all, recorded, refunded, replace};
use super::settlement::{Used, note_debt};
use crate::error::Error;
use crate::grants::{Payments, Use};
use crate::leases::{LeaseHold, lock_holds, update_holds};
use crate::ledger::postings::{self, Posting};
use crate::ledger::{self, Balances};
use crate::rates::{self, Charge, StoredCard, allowance};
use crate::state::AppState;

/// A usage event, and what its request took of its lease.
#[derive(Debug, Clone)]
pub struct Posted {
    /// What was used.
    pub event: UsageEvent,
    /// What the lease gave up for it, in micro-units.
    pub taken: i64,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
    /// The sums in Redis that count its price.
    pub sums: Vec<String>,
}

/// Posts one.
///
/// # Errors
/// [`Error::NotFound`] for the lease of somebody else, an unknown card, or an organization without a wallet;
/// [`Error::ReservationConflict`] when the request was recorded with other usage; the database's.
pub async fn post_one(state: &AppState, posted: Posted) -> Result<Settlement, Error> {
    let request_id = posted.event.request_id;
    let batch = [posted];
    in_transaction!(state.pool, |transaction| {
        post_all(state, transaction, &batch).await?;
        let row = sqlx::query!("select currency, price_micros, cost_micros from usage_events where request_id = $1", request_id.uuid())
            .fetch_one(&mut **transaction)
            .await?;
        Ok(Settlement { request_id, currency: row.currency, price_micros: row.price_micros, cost_micros: row.cost_micros })
    })
}

/// Posts a batch; answers what of it was free, by the sums in Redis that count it as if it were not.
///
/// # Errors
/// As [`post_one`]; then nothing of the batch is posted.
pub async fn post_all(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    batch: &[Posted],
) -> Result<HashMap<String, i64>, Error> {
    let organizations: HashSet<Uuid> = batch.iter().map(|posted| posted.event.organization_id.uuid()).collect();
    let organizations: Vec<Uuid> = organizations.into_iter().collect();
    let balances = ledger::lock_all(transaction, &organizations).await?;
    let leases: HashSet<Uuid> = batch.iter().map(|posted| posted.event.lease_id.uuid()).collect();
    let leases: Vec<Uuid> = leases.into_iter().collect();
    let holds = lock_holds(transaction, &leases).await?.into_iter().collect();
    let cards = cards(transaction, batch).await?;
    let requests: Vec<Uuid> = batch.iter().map(|posted| posted.event.request_id.uuid()).collect();
    // Where every request that was ever recorded stands once, and not in each month's rows: that would cost more with each month.
    let known = sqlx::query_scalar!("select request_id from usage_requests where request_id = any((select $1::uuid[])::uuid[])", &requests)
        .fetch_all(&mut **transaction)
        .await?;
    let known = known.into_iter().map(RequestId::from_uuid).collect();
    let payments = Payments::begin(state, transaction, &organizations).await?;
    let (touched, rows, postings, free) = (BTreeMap::new(), Vec::new(), Vec::new(), HashMap::new());
    let mut work = Work { balances, holds, cards, payments, known, touched, rows, postings, free };
    let mut repeated = Vec::new();
    for posted in batch {
        if work.known.contains(&posted.event.request_id) {
            repeated.push(posted);
        } else {
            work.first(state, transaction, posted).await?;
        }
    }
    // Last, because what they bring back to lots that were empty is not among those that pay for the others.
    for posted in repeated {
        work.again(state, transaction, posted).await?;
    }
    chassis::step!("usage.charged");
    work.write(state, transaction).await
}

/// The cards by which the requests were admitted: cards never change [B-31].
async fn cards(transaction: &mut Transaction<'static, Postgres>, batch: &[Posted]) -> Result<HashMap<i64, StoredCard>, Error> {
    let mut cards = HashMap::new();
    for posted in batch {
        let id = posted.event.rate_card_id;
        if let std::collections::hash_map::Entry::Vacant(vacant) = cards.entry(id) {
            vacant.insert(rates::by_id(&mut **transaction, id).await?);
        }
    }
    Ok(cards)
}

/// A batch under way.
struct Work {
    balances: HashMap<OrganizationId, Balances>,
    holds: HashMap<LeaseId, LeaseHold>,
    cards: HashMap<i64, StoredCard>,
    payments: Payments,
    known: HashSet<RequestId>,
    touched: BTreeMap<LeaseId, LeaseHold>,
    rows: Vec<Record>,
    postings: Vec<(OrganizationId, Posting)>,
    free: HashMap<String, i64>,
}

impl Work {
    /// A request that was not recorded yet.
    async fn first(&mut self, state: &AppState, transaction: &mut Transaction<'static, Postgres>, posted: &Posted) -> Result<(), Error> {
        let event = &posted.event;
        let card = self.card(event)?;
        // What is free of it returns to the wallet: the gateway does not know what is left of an allowance.
        let Charge { price, free, cost } = rates::charge(transaction, event.organization_id, card, &event.usage, event.started_at).await?;
        let balances = *self.balances.get(&event.organization_id).ok_or(Error::NotFound)?;
        let held = self.take(posted)?;
        let lease = held.map(|_| event.lease_id);
        let held = held.unwrap_or(0);
        let bill = Bill { price, reserved: event.reserved_micros, held, available: self.available(event, balances, price) };
        let charged = state.config.overage.charge(transaction, (event.organization_id, event.request_id), bill).await?;
        let posting = postings::settlement(event.request_id, held, balances, charged, cost, state.clock.now());
        self.post(event, posting);
        self.rows.push(record(posted, lease, (charged, price - charged), cost));
        self.known.insert(event.request_id);
        self.freed(posted, free + (price - charged));
        metrics::counter!("billing_settlements_total", "outcome" => event.outcome.as_str()).increment(1);
        Ok(())
    }

    /// What the request's lease has for it, taken from that; none of one that the database does not know. Refused, it would be refused for ever, and
    /// what was used lost: the database was restored from before it was opened, or the lease has been over for so long that it was removed.
    fn take(&mut self, posted: &Posted) -> Result<Option<i64>, Error> {
        let event = &posted.event;
        let Some(lease) = self.holds.get_mut(&event.lease_id) else {
            metrics::counter!("billing_settlements_of_unknown_leases_total").increment(1);
            tracing::warn!(organization.id = %event.organization_id, request.id = %event.request_id, lease.id = %event.lease_id, "a request was paid from a lease that the database does not know: its wallet pays");
            return Ok(None);
        };
        if lease.organization_id != event.organization_id {
            return Err(Error::NotFound);
        }
        // A lease that ended before its request was told holds less than that, or nothing.
        let held = posted.taken.clamp(0, lease.held);
        lease.held -= held;
        self.touched.insert(event.lease_id, *lease);
        Ok(Some(held))
    }

    /// A request that is recorded, or that stood in this batch before.
    async fn again(&mut self, state: &AppState, transaction: &mut Transaction<'static, Postgres>, posted: &Posted) -> Result<(), Error> {
        let (event, used) = (&posted.event, Used::from_event(&posted.event));
        let Some(before) = recorded(transaction, event.request_id, &used).await? else {
            let twin = self.rows.iter().find(|row| row.request_id == event.request_id);
            return if twin.is_some_and(|row| row.used.usage == used.usage) { Ok(()) } else { Err(Error::ReservationConflict) };
        };
        // A sweeper that comes after the process itself has nothing to say.
        if before.is_same || event.counted_by == CountedBy::Abandoned {
            return Ok(());
        }
        if before.counted_by != CountedBy::Abandoned.as_str() {
            return Err(Error::ReservationConflict);
        }
        let card = self.card(event)?;
        let (price, cost) = (card.card.price.amount(&event.usage)?, card.card.cost.amount(&event.usage)?);
        let more = price - card.card.price.amount(&before.usage)?;
        if more < 0 {
            return self.less(state, transaction, event, &before, (-more, cost)).await;
        }
        // What of it was free stays so, and the rest has what is left of the allowance.
        let dearer = cost - before.cost;
        let free = allowance::take(transaction, event.organization_id, card, more, event.started_at).await?;
        let more = more - free;
        let balances = *self.balances.get(&event.organization_id).ok_or(Error::NotFound)?;
        let reserved = (event.reserved_micros - before.price).max(0);
        let bill = Bill { price: more, reserved, held: 0, available: self.available(event, balances, before.price + more) };
        let charged = state.config.overage.charge(transaction, (event.organization_id, event.request_id), bill).await?;
        self.freed(posted, free + (more - charged));
        let posting = postings::late_settlement(event.request_id, balances, charged, dearer, state.clock.now());
        self.post(event, posting);
        metrics::counter!("billing_flights_abandoned_reported_total").increment(1);
        replace(
            state,
            transaction,
            event.request_id,
            &used,
            (before.price + charged, before.written_off + more - charged),
            before.cost + dearer,
        )
        .await
    }

    /// A request that used less than its last checkpoint said (of its prompt some was read from a cache, or its text has fewer tokens to its
    /// model): what nobody paid comes off first, then what was charged, which goes back to the lots that paid it, and then what was free.
    async fn less(
        &mut self,
        state: &AppState,
        transaction: &mut Transaction<'static, Postgres>,
        event: &UsageEvent,
        before: &Recorded,
        (less, cost): (i64, i64),
    ) -> Result<(), Error> {
        let unpaid = less.min(before.written_off);
        // What somebody gave back of it before is back already.
        let back = (less - unpaid).min(before.price - refunded(transaction, event.request_id).await?).max(0);
        let free = less - unpaid - before.price;
        allowance::give_back(transaction, event.organization_id, &event.model, free, event.started_at).await?;
        let balances = *self.balances.get(&event.organization_id).ok_or(Error::NotFound)?;
        let posting = postings::late_settlement(event.request_id, balances, -back, cost - before.cost, state.clock.now());
        self.payments.give_back(state, transaction, event.organization_id, &posting).await?;
        self.post(event, posting);
        metrics::counter!("billing_flights_abandoned_reported_total").increment(1);
        let used = Used::from_event(event);
        replace(state, transaction, event.request_id, &used, (before.price - back, before.written_off - unpaid), cost).await
    }

    /// What there is for a request that cost more than was taken for it; of others nobody asks.
    fn available(&self, event: &UsageEvent, balances: Balances, price: i64) -> i64 {
        if price <= event.reserved_micros {
            return 0;
        }
        self.payments.spendable(event.organization_id, balances, Use::model(&event.model))
    }

    /// The card that the gateway admitted it by: of this model, and for everybody or this organization.
    fn card(&self, event: &UsageEvent) -> Result<&StoredCard, Error> {
        let card = self.cards.get(&event.rate_card_id).filter(|card| card.model == event.model);
        let card = card.filter(|card| card.organization_id.is_none_or(|owner| owner == event.organization_id));
        card.ok_or(Error::ModelNotPriced)
    }

    /// A posting, what pays for it, and what nothing may pay for.
    fn post(&mut self, event: &UsageEvent, posting: Posting) {
        note_debt(event.organization_id, event.request_id, &posting);
        if posting.moves_nothing() {
            return;
        }
        let short = self.payments.follow(event.organization_id, &posting, Use::model(&event.model), event.started_at);
        for posting in std::iter::once(posting).chain(short) {
            self.balances.entry(event.organization_id).and_modify(|balances| *balances = balances.after(&posting));
            self.postings.push((event.organization_id, posting));
        }
    }

    /// The sums that count a request hold its whole price: what of it is not charged.
    fn freed(&mut self, posted: &Posted, free: i64) {
        for sum in posted.sums.iter().filter(|_| free > 0) {
            let all = self.free.entry(sum.clone()).or_default();
            *all = all.saturating_add(free);
        }
    }

    async fn write(self, state: &AppState, transaction: &mut Transaction<'static, Postgres>) -> Result<HashMap<String, i64>, Error> {
        let touched: Vec<(LeaseId, LeaseHold)> = self.touched.into_iter().collect();
        update_holds(transaction, &touched).await?;
        ledger::post_all(state, transaction, crate::ledger::CREDIT, &self.postings).await?;
        self.payments.write(transaction).await?;
        insert_all(state, transaction, &self.rows).await?;
        Ok(self.free)
    }
}

fn record(posted: &Posted, lease_id: Option<LeaseId>, (price, written_off): (i64, i64), cost: i64) -> Record {
    let event = &posted.event;
    Record {
        request_id: event.request_id,
        organization_id: event.organization_id,
        api_key_id: event.api_key_id,
        user_id: event.user_id,
        model: event.model.clone(),
        provider: event.provider.clone(),
        used: Used::from_event(event),
        rate_card_id: event.rate_card_id,
        price,
        written_off,
        cost,
        trace_id: posted.trace_id.clone(),
        lease_id,
        tags: event.tags.clone(),
    }
}
