//! Fills a lease: the hold in the ledger first, then the remainder in Redis.

use admission::{Funded, Funding, Instance};
use chassis::in_transaction;
use chrono::{DateTime, Utc};
use contracts::leases::{Lease, LeaseRequest, SeenLease};
use contracts::{LeaseId, Shard};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};

use super::closing;
use super::sizing::{Demand, size};
use super::store::{self, StoredLease};
use crate::error::Error;
use crate::grants::{self, Spendable, Use};
use crate::state::AppState;
use crate::{organizations, reservations};

/// A lease may end while it is filled, and another then begins; and what must end first ends one after the other.
const TRIES: usize = 8;

/// What is to be done after the ledger was asked.
enum Step {
    /// Redis is to hold this.
    Fund(StoredLease),
    /// The wallet does not reach, but what is left of these leases may.
    Close(Vec<StoredLease>),
    /// The same of these, of which nothing can be in flight any more.
    Drain(Vec<LeaseId>),
}

/// Fills the organization's lease, opening one when there is none.
///
/// # Errors
/// [`Error::InsufficientFunds`]; [`Error::LeaseUnavailable`] when Redis is away, or when money is bound in a lease that Redis has lost.
pub async fn fill(state: &AppState, request: &LeaseRequest) -> Result<Lease, Error> {
    for _ in 0..TRIES {
        let fresh = state.random.uuid_v7(&state.clock).simple().to_string();
        let instance = state.admissions.instance(Shard::of(request.organization_id), &fresh).await?;
        chassis::step!("lease.instance_known");
        let lease = match in_transaction!(state.pool, |transaction| { ask(state, transaction, request, &instance).await })? {
            Step::Fund(lease) => lease,
            Step::Close(leases) => {
                for lease in leases {
                    closing::close(state, lease.organization_id, lease.model.as_deref(), lease.id).await?;
                }
                continue;
            }
            Step::Drain(leases) => {
                for lease in leases {
                    closing::drain(state, lease).await?;
                }
                continue;
            }
        };
        chassis::step!("lease.held");
        match fund(state, &lease).await? {
            Funded::Yes => {
                chassis::step!("lease.funded");
                store::opened(state, lease.id).await?;
                chassis::step!("lease.opened");
                return Ok(Lease { id: lease.id, epoch: lease.epoch, funded_micros: lease.funded });
            }
            Funded::Lost => closing::lost(state, lease.id).await?,
            Funded::Superseded { epoch } => overtake(state, &lease, epoch).await?,
            Funded::Closed => {}
        }
    }
    Err(Error::LeaseUnavailable)
}

/// Redis has a later lease than this one. If this one has ended meanwhile, that is as it should be. If it has not, the later one is of a time that
/// the database does not know: it was restored, and Redis was not. Then this one comes after it, if Redis never had it; and if Redis had it, nobody
/// knows what was taken from it, and what it holds is kept as that of a lease that was lost. (One that was `opening` when the backup was made
/// and that Redis had in the end is past its deadline by the time that anybody asks for it, and does not come here.)
async fn overtake(state: &AppState, lease: &StoredLease, later: i64) -> Result<(), Error> {
    let is = in_transaction!(state.pool, |transaction| { store::rise(transaction, lease.id, later).await })?;
    if is.as_deref() == Some("open") {
        closing::lost(state, lease.id).await?;
    }
    Ok(())
}

async fn fund(state: &AppState, lease: &StoredLease) -> Result<Funded, Error> {
    let funding = Funding {
        organization_id: lease.organization_id,
        model: lease.model.as_deref(),
        lease_id: lease.id,
        epoch: lease.epoch,
        funded_micros: lease.funded,
        low_micros: lease.low,
        until: lease.deadline,
        instance: &Instance(lease.instance.clone()),
        is_new: lease.state == "opening",
    };
    Ok(state.admissions.fund(&funding).await?)
}

/// What is asked of one lease.
#[derive(Clone, Copy)]
struct Wanted<'r> {
    model: Option<&'r str>,
    /// What the caller misses in it.
    needed: i64,
    /// What it needs if that lease is over.
    cost: i64,
    seen: Option<SeenLease>,
}

impl<'r> Wanted<'r> {
    /// The lease for all requests first, then the one for the model; that one alone when it is what runs low.
    fn of(request: &'r LeaseRequest) -> Vec<Self> {
        let cost = request.model.as_ref().map_or(request.needed_micros, |model| model.cost_micros);
        let all = Self { model: None, needed: request.needed_micros, cost, seen: request.seen };
        let model = request.model.as_ref();
        let model = model.map(|model| Self { model: Some(&model.model), needed: model.needed_micros, cost, seen: model.seen });
        match model {
            Some(low) if low.needed == 0 => vec![low],
            model => std::iter::once(all).chain(model).collect(),
        }
    }

    fn use_of(self) -> Use<'r> {
        self.model.map_or(Use::CHAT, Use::model)
    }

    /// The lease that it is about, if there is one that can be filled.
    fn active(self, leases: &[StoredLease]) -> Option<&StoredLease> {
        leases.iter().find(|lease| lease.model.as_deref() == self.model && lease.is_active())
    }

    /// What must be put into that one, or into another in its place.
    fn needed(self, active: Option<&StoredLease>) -> i64 {
        if active.is_none() && self.needed > 0 { self.cost } else { self.needed }
    }
}

async fn ask(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    request: &LeaseRequest,
    instance: &Instance,
) -> Result<Step, Error> {
    let organization = request.organization_id;
    organizations::ensure_wallet(state, transaction, organization).await?;
    let mut freed = false;
    loop {
        let general = grants::spendable(state, transaction, organization, Use::CHAT).await?;
        let leases = store::unfinished(transaction, organization).await?;
        let (mut spendable, wishes) = (general, Wanted::of(request));
        for wanted in wishes.iter().copied() {
            if wanted.model.is_some() {
                spendable = grants::spendable(state, transaction, organization, wanted.use_of()).await?;
            }
            if let Some(step) = try_fill(state, transaction, (organization, wanted), &leases, (general, spendable), instance).await? {
                return Ok(step);
            }
        }
        if std::mem::replace(&mut freed, true) {
            let step = without_funds(&leases, request, (general, spendable), state.clock.now())?;
            if let Step::Close(leases) = &step {
                for lease in leases {
                    store::closing(transaction, lease.id).await?;
                }
            }
            return Ok(step);
        }
        let needed = wishes.first().map_or(0, |all| all.needed(all.active(&leases)));
        reservations::free(state, transaction, organization, needed.saturating_sub(general.micros)).await?;
    }
}

/// One lease filled, or ended when its time is over; none when what there is for it does not reach.
async fn try_fill(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    (organization, wanted): (OrganizationId, Wanted<'_>),
    leases: &[StoredLease],
    (general, spendable): (Spendable, Spendable),
    instance: &Instance,
) -> Result<Option<Step>, Error> {
    let active = wanted.active(leases);
    if let Some(lease) = active.filter(|lease| lease.deadline <= state.clock.now()) {
        // It would admit nothing any more.
        store::closing(transaction, lease.id).await?;
        return Ok(Some(Step::Close(vec![lease.clone()])));
    }
    if let Some(lease) = active.filter(|lease| !is_dry(lease, wanted.seen)) {
        return Ok(Some(Step::Fund(lease.clone())));
    }
    let last = active.map(|lease| (lease.low.saturating_mul(4), state.clock.now() - lease.funded_at));
    let own = if wanted.model.is_some() { spendable.micros.saturating_sub(general.micros.max(0)) } else { spendable.micros };
    let demand = Demand { needed: wanted.needed(active), available: spendable.micros, own, last, start: state.config.lease.start };
    let lease = match (size(demand).filter(|amount| *amount > 0), active) {
        (Some(amount), Some(lease)) => store::add(state, transaction, lease.clone(), amount, spendable.until).await?,
        (Some(amount), None) => {
            store::open(state, transaction, (organization, wanted.model), (amount, spendable.until), &instance.0).await?
        }
        // Nobody needs it now: what is there stays as it is.
        (None, Some(lease)) if wanted.needed == 0 => lease.clone(),
        (None, _) => return Ok(None),
    };
    Ok(Some(Step::Fund(lease)))
}

/// Whether the caller saw all that is in the lease. Otherwise somebody else has been served meanwhile, or Redis is behind.
fn is_dry(lease: &StoredLease, seen: Option<SeenLease>) -> bool {
    lease.state == "open" && seen.is_some_and(|seen| seen.lease_id == lease.id && seen.funded_micros >= lease.funded)
}

/// The wallet does not reach; what ended leases still hold may, or what lies in leases for something else.
fn without_funds(
    leases: &[StoredLease],
    request: &LeaseRequest,
    (general, spendable): (Spendable, Spendable),
    now: DateTime<Utc>,
) -> Result<Step, Error> {
    let closing: Vec<StoredLease> = leases.iter().filter(|lease| lease.state == "closing").cloned().collect();
    if !closing.is_empty() {
        return Ok(Step::Close(closing));
    }
    // Whoever needs the money does not depend on the sweeper for it [B-42].
    let drained: Vec<LeaseId> = leases.iter().filter(|lease| lease.is_drained(now)).map(|lease| lease.id).collect();
    if !drained.is_empty() {
        return Ok(Step::Drain(drained));
    }
    let elsewhere = elsewhere(leases, request, (general, spendable));
    if !elsewhere.is_empty() {
        return Ok(Step::Close(elsewhere));
    }
    let organization = request.organization_id;
    if leases.iter().any(|lease| lease.state == "lost" && lease.held > 0) {
        tracing::info!(organization.id = %organization, "what is left of the wallet is bound in a lease that Redis has lost");
        return Err(Error::LeaseUnavailable);
    }
    Err(Error::InsufficientFunds)
}

/// Leases that keep, for other requests, what this one might be paid from: only where credit is left that is for some models alone, and
/// only if that would reach.
fn elsewhere(leases: &[StoredLease], request: &LeaseRequest, (general, spendable): (Spendable, Spendable)) -> Vec<StoredLease> {
    let of_others = |lease: &&StoredLease| {
        lease.is_active() && lease.model.is_some() && lease.model.as_ref() != request.model.as_ref().map(|model| &model.model)
    };
    let others: Vec<StoredLease> = leases.iter().filter(of_others).cloned().collect();
    if !others.is_empty() && general.micros.saturating_add(general.bound) >= request.needed_micros {
        return others;
    }
    let Some(model) = &request.model else { return Vec::new() };
    // What the lease for all requests has left may be added to what pays for this model alone.
    let left = if request.seen.is_some() { (model.cost_micros - request.needed_micros).max(0) } else { 0 };
    let reaches = spendable.micros.saturating_add(spendable.bound).saturating_add(left) >= model.needed_micros;
    let is_restricted = spendable.micros > general.micros.max(0) || model.seen.is_some();
    if !reaches || !is_restricted {
        return Vec::new();
    }
    let all = leases.iter().filter(|lease| lease.is_active() && lease.model.is_none() && left > 0).cloned();
    others.into_iter().chain(all).collect()
}
