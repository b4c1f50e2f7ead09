//! One call of a model: paid for, made, settled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use admission::{Admission, Counted, Limit, Note};
use bytes::Bytes;
use chassis::telemetry;
use chrono::{DateTime, TimeDelta, Utc};
use contracts::entitlements::Entitlements;
use contracts::usage::{CountedBy, Outcome, UsageEvent};
use contracts::{LeaseId, RequestId};
use http::HeaderMap;
use identity::Principal;
use llm::{ChatRequest, Tally};
use money::{Ceiling, Schedule, TokenUsage};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::drain::Drain;
use super::{stream, whole};
use crate::body::Share;
use crate::budget::Refusal;
use crate::error::ApiError;
use crate::limits::{Limits, Subject, Tags};
use crate::models::Model;
use crate::settlement::{Guard, Known, Prompt, Record, Slot};
use crate::state::AppState;
use crate::{genai, meters};

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
    /// The share of the memory for bodies that the request has.
    #[expect(dead_code, reason = "it is held until the call is over")]
    pub share: Share,
    /// What the organization may do.
    pub entitlements: Arc<Entitlements>,
    /// What the request is tagged with.
    pub tags: Tags,
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
    /// Runs the call to its end; the slot is used exactly once, unless nothing was taken.
    pub async fn run(self, slot: Slot, answer: Answer) {
        let (event, price, tokens) = match self.event().await {
            Ok(priced) => priced,
            // The client may have left; there is nobody else to tell. So it is with all answers.
            Err(error) => return drop(answer.send(Err(error))),
        };
        chassis::step!("request.priced");
        let limits = self.limits(&event, tokens);
        let counted: Vec<Counted> = limits.limits.iter().filter_map(Limit::counted).collect();
        let known = Known { event, price, counted };
        let known = match self.take(&known, &limits.limits).await {
            Ok(lease_id) => {
                chassis::step!("request.admitted");
                Known { event: UsageEvent { lease_id, ..known.event }, ..known }
            }
            Err(Refusal::Refused(error)) => return drop(answer.send(Err(error))),
            Err(Refusal::Limited(limit, retry_after)) => {
                drop(answer.send(Err(limits.refusal(limit, retry_after))));
                return self.tell_refused(limits.of_spending(limit)).await;
            }
            Err(Refusal::Unknown) => {
                slot.send(Record::not_made(known));
                return drop(answer.send(Err(ApiError::Unavailable("the admission of requests"))));
            }
        };
        let span = genai::span(&self.state.provider_config.name, &self.model.id, self.request.max_tokens(), &self.id.to_string());
        let guard = self.guard(slot, known, span.clone());
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

    fn limits(&self, event: &UsageEvent, tokens: u64) -> Limits {
        let subject = Subject {
            caller: &self.caller,
            model: &self.model.id,
            tags: &self.tags,
            tokens,
            cost_micros: event.reserved_micros,
            at: self.started_at,
        };
        Limits::of(&subject, &self.state.limits, &self.entitlements)
    }

    /// The usage event with nothing used yet, the rates of the model, and the most tokens that the request can use.
    async fn event(&self) -> Result<(UsageEvent, Schedule, u64), ApiError> {
        let card = self.state.prices.find(&self.model.id, self.caller.organization_id, self.started_at).await?;
        let allowances = self.model.allowances();
        let (input, output) = (self.request.max_input_tokens(&allowances), self.request.max_output_tokens(&allowances));
        // Audio without a rate would be free, or its usage could never be posted [B-32].
        if !card.price.prices(self.request.audio(), input) {
            return Err(ApiError::ModelNotFound);
        }
        let images = self.images(&card.price);
        let ceiling = Ceiling { input_tokens: input, output_tokens: output, audio: self.request.audio(), images };
        let reserved = card.price.upper_bound(ceiling);
        let event = UsageEvent {
            request_id: self.id,
            lease_id: LeaseId::from_uuid(Uuid::nil()),
            reserved_micros: reserved.map_err(|_| ApiError::Internal("a request has no price"))?,
            rate_card_id: card.rate_card_id,
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
            tags: self.tags.names().clone(),
        };
        Ok((event, card.price, input.saturating_add(output)))
    }

    /// Images that are paid by the piece, beside the tokens that they count.
    fn images(&self, price: &Schedule) -> u64 {
        if price.prices_images(self.request.max_input_tokens(&self.model.allowances())) { self.request.images() } else { 0 }
    }

    /// Notes for billing-service, which tells the customer, that a limit of money refuses. What is not noted now is with the next refusal.
    async fn tell_refused(&self, limit: Option<&Limit>) {
        let Some(limit) = limit else { return };
        if let Err(error) = self.state.admissions.note_refused(limit).await {
            tracing::warn!(error.message = error.category(), "that a limit refuses was not noted");
        }
    }

    /// Takes the most that the request can cost, and counts it.
    async fn take(&self, known: &Known, limits: &[Limit]) -> Result<LeaseId, Refusal> {
        let life = self.state.provider_config.deadline.0 + self.state.limits.reservation_margin.0;
        let note = Note { event: known.event.clone(), counted: known.counted.clone(), traceparent: telemetry::current_traceparent() };
        let admission = Admission {
            request_id: self.id,
            organization_id: self.caller.organization_id,
            cost_micros: known.event.reserved_micros,
            now: self.started_at,
            deadline: self.started_at + TimeDelta::from_std(life).unwrap_or(TimeDelta::MAX),
            limits,
            note: &note,
        };
        self.state.budget.take(&admission).await
    }

    fn guard(&self, slot: Slot, known: Known, span: Span) -> Guard {
        let tally = Tally::new(self.state.limits.counted_text);
        let prompt = Prompt::new(Arc::clone(&self.request), self.model.allowances()).with_images(self.images(&known.price));
        Guard::new(slot, known, tally, prompt, self.state.clock.clone(), span)
    }

    /// Sends the request to the provider; the time until its headers is not ours.
    pub(super) async fn send(&self) -> Result<reqwest::Response, ApiError> {
        let limit_field = self.state.provider_config.limit_field.map(|field| field.0);
        let body = self.request.to_provider(self.model.provider_model(), &self.model.allowances(), limit_field);
        chassis::step!("provider.asking");
        let answer = self.state.provider.send(body, &self.id.to_string(), self.headers.clone()).await;
        chassis::step!("provider.answered");
        answer
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
