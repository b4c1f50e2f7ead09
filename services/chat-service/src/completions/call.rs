//! One call of a model: reserved, made, settled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use contracts::RequestId;
use contracts::billing::{Reservation, ReserveError};
use contracts::usage::{CountedBy, Outcome, UsageEvent};
use http::HeaderMap;
use identity::Principal;
use llm::{ChatRequest, Tally};
use money::TokenUsage;
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, Span};

use super::drain::Drain;
use super::{hold, stream, whole};
use crate::error::ApiError;
use crate::genai;
use crate::meters;
use crate::models::Model;
use crate::settlement::{Guard, Prompt, Slot};
use crate::state::AppState;

/// What calls without a client get when everything else has ended; the host waits ten seconds for settlements.
const LAST_DRAIN: Duration = Duration::from_secs(2);

/// How an answer begins.
#[derive(Debug)]
pub enum Head {
    /// And ends.
    Whole(Bytes),
    /// The first items are in the channel.
    Stream(mpsc::Receiver<Bytes>),
}

/// Where the beginning of the answer goes; closed when the client has left.
pub type Answer = oneshot::Sender<Result<Head, ApiError>>;

/// An admitted request.
#[derive(Debug)]
pub struct Call {
    /// Its id, everywhere.
    pub id: RequestId,
    /// Who asks.
    pub caller: Principal,
    /// What is asked.
    pub model: Arc<Model>,
    /// What is asked.
    pub request: Arc<ChatRequest>,
    /// Headers for the provider.
    pub headers: HeaderMap,
    /// When it was admitted.
    pub started_at: DateTime<Utc>,
    /// The same, for durations.
    pub arrived: Instant,
    /// Everything else.
    pub state: AppState,
}

impl Call {
    /// Runs the call to its end; the slot is used exactly once, unless nothing was reserved.
    pub async fn run(self, slot: Slot, answer: Answer) {
        let request = self.reservation();
        let reservation = match self.reserve(&request).await {
            Ok(reservation) => reservation,
            Err(error) => {
                // The client may have left; there is nobody else to tell.
                let _ = answer.send(Err(error.into()));
                if error == ReserveError::Unavailable {
                    // Outside of the request's span, which ends with the answer.
                    let span = tracing::info_span!(parent: None, "give back", trivet.request_id = %self.id);
                    self.state.tasks.spawn(hold::give_back(self.state.clone(), request, slot).instrument(span));
                }
                return;
            }
        };
        let span = genai::span(&self.state.provider_config.name, &self.model.id, self.request.max_tokens(), &self.id.to_string());
        let guard = self.guard(slot, &reservation, span.clone());
        if answer.is_closed() {
            return guard.release(Outcome::ClientClosed);
        }
        async {
            if self.request.stream() {
                stream::run(&self, guard, answer).await;
            } else {
                whole::run(&self, guard, answer).await;
            }
        }
        .instrument(span)
        .await;
    }

    fn guard(&self, slot: Slot, reservation: &Reservation, span: Span) -> Guard {
        let event = UsageEvent {
            request_id: self.id,
            reservation_id: reservation.id,
            organization_id: self.caller.organization_id,
            api_key_id: self.caller.api_key_id(),
            user_id: self.caller.user_id(),
            model: self.model.id.clone(),
            provider: self.state.provider_config.name.clone(),
            usage: TokenUsage::default(),
            counted_by: CountedBy::Counted,
            outcome: Outcome::Failed,
            started_at: self.started_at,
            ended_at: self.started_at,
        };
        let tally = Tally::new(self.state.limits.counted_text);
        let prompt = Prompt { request: Arc::clone(&self.request), allowances: self.model.allowances() };
        Guard::new(slot, event, tally, prompt, self.state.clock.clone(), span)
    }

    /// Sends the request to the provider; the time until its headers is not ours.
    pub(super) async fn send(&self) -> Result<reqwest::Response, ApiError> {
        let limit_field = self.state.provider_config.limit_field.map(|field| field.0);
        let body = self.request.to_provider(self.model.provider_model(), &self.model.allowances(), limit_field);
        self.state.provider.send(body, &self.id.to_string(), self.headers.clone()).await
    }

    /// When everything about this call must be over.
    pub(super) fn deadline(&self) -> tokio::time::Instant {
        (self.arrived + self.state.provider_config.deadline.0).into()
    }

    /// Records what the gateway itself took of the time until now, given what it waited for the provider.
    pub(super) fn record_overhead(&self, waited: Duration) {
        meters::overhead(self.arrived.elapsed().saturating_sub(waited));
    }

    /// Resolves when the client has left before its answer began, and what is granted to a call without a client is used up.
    pub(super) async fn given_up(&self, answer: &mut Answer) {
        answer.closed().await;
        let drain = Drain::begin(&self.state);
        drain.over().await;
    }

    /// Ends when the call must: a while after the service began to drain, and soon after its last connection ended, when only
    /// calls without a client are left.
    pub(super) async fn shutdown(&self) {
        let with_client = async {
            self.state.draining.cancelled().await;
            tokio::time::sleep(self.state.shutdown_grace).await;
        };
        let without_client = async {
            self.state.stopping.cancelled().await;
            tokio::time::sleep(LAST_DRAIN).await;
        };
        tokio::select! {
            () = with_client => {}
            () = without_client => {}
        }
    }
}
