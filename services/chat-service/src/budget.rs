//! Money and limits of a request: taken in one round trip to Redis; billing-service is asked only when the lease does not reach.

mod gate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use admission::{Admission, Admissions, Verdict};
use contracts::LeaseId;
use contracts::billing::BillingClient;
use contracts::leases::{LeaseError, LeaseRequest};
use identity::OrganizationId;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::ApiError;
use gate::{Closed, Gate};

/// Others may take what a lease was filled with before this request does; near the end of a wallet that can go on for a while.
const TRIES: usize = 64;

/// Why a request may not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing was taken.
    Refused(ApiError),
    /// Nothing was taken: the limit of this index refuses, until there may be room.
    Limited(usize, Duration),
    /// Redis did not answer: it may have been taken.
    Unknown,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// Takes money and counts requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    admissions: Admissions,
    billing: BillingClient,
    tasks: TaskTracker,
    /// One question to billing-service at a time for each organization.
    gates: Arc<Mutex<HashMap<OrganizationId, Arc<Gate>>>>,
}

impl Budget {
    /// A budget on these leases.
    #[must_use]
    pub fn new(admissions: Admissions, billing: BillingClient, tasks: TaskTracker) -> Self {
        Self { admissions, billing, tasks, gates: Arc::default() }
    }

    /// Takes the worst-case cost of a request from the organization's lease, and has the lease filled when it does not reach.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn take(&self, admission: &Admission<'_>) -> Result<LeaseId, Refusal> {
        match self.admit(admission).await? {
            Ok(lease) => Ok(lease),
            Err(_) => self.fill_and_take(admission).await,
        }
    }

    /// One at a time: those that waited find the lease filled, or are told what their question was answered, or that nobody answered it.
    async fn fill_and_take(&self, admission: &Admission<'_>) -> Result<LeaseId, Refusal> {
        let organization_id = admission.organization_id;
        let gate = self.gate(organization_id);
        let taken = self.take_in_turn(admission, &gate).await;
        self.close_gate(organization_id, gate);
        taken
    }

    async fn take_in_turn(&self, admission: &Admission<'_>, gate: &Gate) -> Result<LeaseId, Refusal> {
        let mut turn = gate.enter().await.map_err(|closed| match closed {
            Closed::Unanswered => ApiError::Unavailable("billing"),
            Closed::Full => ApiError::TooManyAtOnce("waiting requests"),
        })?;
        for _ in 0..TRIES {
            let request = match self.admit(admission).await? {
                Ok(lease) => return Ok(lease),
                Err(request) => request,
            };
            if turn.is_refused(&request) {
                return Err(ApiError::InsufficientQuota.into());
            }
            let span = tracing::info_span!("lease", otel.kind = "client");
            chassis::step!("lease.asking");
            let answer = self.billing.lease(&request).instrument(span).await;
            match answer {
                Ok(_) => {}
                Err(LeaseError::InsufficientFunds) => {
                    turn.note_refused(request);
                    return Err(ApiError::InsufficientQuota.into());
                }
                Err(LeaseError::Unavailable) => {
                    gate.failed();
                    return Err(ApiError::Unavailable("billing").into());
                }
            }
            chassis::step!("lease.answered");
        }
        Err(ApiError::Unavailable("a share of the wallet").into())
    }

    /// One round trip. What to ask for, when no lease reaches.
    async fn admit(&self, admission: &Admission<'_>) -> Result<Result<LeaseId, LeaseRequest>, Refusal> {
        let span = tracing::info_span!("admission", otel.kind = "client", otel.name = "EVALSHA admit", db.system.name = "redis");
        let verdict = self.admissions.admit(admission).instrument(span).await.map_err(|error| {
            tracing::warn!(error.message = error.category(), "a request could not be admitted");
            Refusal::Unknown
        })?;
        match verdict {
            Verdict::Admitted { lease, of_model, low } => {
                if low {
                    self.fill_in_passing(admission.low(lease, of_model));
                }
                Ok(Ok(lease.lease_id))
            }
            Verdict::Short { all, model } => Ok(Err(admission.short(all, model))),
            Verdict::Limited { limit, retry_after } => Err(Refusal::Limited(limit, retry_after)),
            Verdict::Duplicate => Err(ApiError::Internal("a request id was used twice").into()),
        }
    }

    /// Before the lease runs dry, so that no request has to wait for it; unless somebody is at it already.
    fn fill_in_passing(&self, request: LeaseRequest) {
        let organization_id = request.organization_id;
        let gate = self.gate(organization_id);
        let Some(alone) = gate.try_enter() else { return };
        let budget = self.clone();
        let filling = async move {
            if budget.billing.lease(&request).await == Err(LeaseError::Unavailable) {
                gate.failed();
                tracing::warn!(organization.id = %organization_id, "a lease that runs low could not be filled");
            }
            drop(alone);
            budget.close_gate(organization_id, gate);
        };
        self.tasks.spawn(filling.in_current_span());
    }

    fn gate(&self, organization: OrganizationId) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(gates.entry(organization).or_default())
    }

    /// The last one out takes the gate away: there are as many as there are organizations that wait.
    fn close_gate(&self, organization: OrganizationId, gate: Arc<Gate>) {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        drop(gate);
        if gates.get(&organization).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            gates.remove(&organization);
        }
    }
}
