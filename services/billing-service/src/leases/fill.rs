//! Fills a lease: the hold in the ledger first, then the remainder in Redis.

use admission::{Funded, Funding, Instance};
use chassis::in_transaction;
use contracts::Shard;
use contracts::leases::{Lease, LeaseRequest, SeenLease};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};

use super::closing;
use super::sizing::{Demand, size};
use super::store::{self, StoredLease};
use crate::error::Error;
use crate::grants::{self, Use};
use crate::state::AppState;
use crate::{organizations, reservations};

/// A lease may end while it is filled, and another then begins.
const TRIES: usize = 4;

/// What is to be done after the ledger was asked.
enum Step {
    /// Redis is to hold this.
    Fund(StoredLease),
    /// The wallet does not reach, but what is left of these leases may.
    Close(Vec<StoredLease>),
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
                    closing::close(state, lease.organization_id, lease.id).await?;
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
            Funded::Closed | Funded::Superseded => {}
        }
    }
    Err(Error::LeaseUnavailable)
}

async fn fund(state: &AppState, lease: &StoredLease) -> Result<Funded, Error> {
    let funding = Funding {
        organization_id: lease.organization_id,
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

async fn ask(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    request: &LeaseRequest,
    instance: &Instance,
) -> Result<Step, Error> {
    let organization = request.organization_id;
    organizations::ensure_wallet(state, transaction, organization).await?;
    let mut spendable = grants::spendable(state, transaction, organization, Use::CHAT).await?;
    let leases = store::unfinished(transaction, organization).await?;
    let active = leases.iter().find(|lease| lease.state == "opening" || lease.state == "open");
    if let Some(lease) = active.filter(|lease| lease.deadline <= state.clock.now()) {
        // It would admit nothing any more.
        store::closing(transaction, lease.id).await?;
        return Ok(Step::Close(vec![lease.clone()]));
    }
    if let Some(lease) = active.filter(|lease| !is_dry(lease, request.seen)) {
        return Ok(Step::Fund(lease.clone()));
    }
    if request.needed_micros > spendable.micros {
        reservations::free(state, transaction, organization, request.needed_micros.saturating_sub(spendable.micros)).await?;
        spendable = grants::spendable(state, transaction, organization, Use::CHAT).await?;
    }
    let last = active.map(|lease| (lease.low.saturating_mul(4), state.clock.now() - lease.funded_at));
    let demand = Demand { needed: request.needed_micros, available: spendable.micros, last, start: state.config.lease.start };
    match (size(demand).filter(|amount| *amount > 0), active) {
        (Some(amount), Some(lease)) => Ok(Step::Fund(store::add(state, transaction, lease.clone(), amount, spendable.until).await?)),
        (Some(amount), None) => Ok(Step::Fund(store::open(state, transaction, organization, amount, &instance.0, spendable.until).await?)),
        // Nobody needs it now: what is there stays as it is.
        (None, Some(lease)) if request.needed_micros == 0 => Ok(Step::Fund(lease.clone())),
        (None, _) => without_funds(&leases, organization),
    }
}

/// Whether the caller saw all that is in the lease. Otherwise somebody else has been served meanwhile, or Redis is behind.
fn is_dry(lease: &StoredLease, seen: Option<SeenLease>) -> bool {
    lease.state == "open" && seen.is_some_and(|seen| seen.lease_id == lease.id && seen.funded_micros >= lease.funded)
}

/// The wallet does not reach; what ended leases still hold may.
fn without_funds(leases: &[StoredLease], organization: OrganizationId) -> Result<Step, Error> {
    let closing: Vec<StoredLease> = leases.iter().filter(|lease| lease.state == "closing").cloned().collect();
    if !closing.is_empty() {
        return Ok(Step::Close(closing));
    }
    if leases.iter().any(|lease| lease.state == "lost" && lease.held > 0) {
        tracing::info!(organization.id = %organization, "what is left of the wallet is bound in a lease that Redis has lost");
        return Err(Error::LeaseUnavailable);
    }
    Err(Error::InsufficientFunds)
}
