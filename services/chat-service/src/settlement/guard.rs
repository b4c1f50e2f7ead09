//! Settles a completion when it is told to, or when it is dropped.

use std::sync::Arc;

use chassis::{Clock, telemetry};
use contracts::usage::{CountedBy, Outcome, UsageEvent};
use llm::{ChatRequest, Tally};
use money::TokenUsage;
use tracing::Span;

use super::{Record, Slot};
use crate::genai;
use crate::meters;

/// Holds a place in the queue and what is known about the completion so far.
#[derive(Debug)]
pub struct Guard {
    slot: Option<Slot>,
    event: UsageEvent,
    /// What the provider's answer said so far.
    pub tally: Tally,
    request: Arc<ChatRequest>,
    clock: Clock,
    span: Span,
    /// Whether the provider has begun to answer: only then is there something to charge.
    pub begun: bool,
}

impl Guard {
    /// A guard for an event that is complete but for its end.
    #[must_use]
    pub fn new(slot: Slot, event: UsageEvent, tally: Tally, request: Arc<ChatRequest>, clock: Clock, span: Span) -> Self {
        meters::admitted();
        Self { slot: Some(slot), event, tally, request, clock, span, begun: false }
    }

    /// Nothing was generated: the hold is released and nothing is charged.
    pub fn release(mut self, outcome: Outcome) {
        self.hand_over(TokenUsage::default(), CountedBy::Counted, outcome);
    }

    /// Settles with the provider's count, or else by counting what came, off the async threads.
    pub async fn settle(mut self, outcome: Outcome) {
        if !self.begun {
            return self.release(outcome);
        }
        if let Some(usage) = self.tally.reported() {
            return self.hand_over(usage, CountedBy::Reported, outcome);
        }
        let (tally, request) = (std::mem::take(&mut self.tally), Arc::clone(&self.request));
        let estimated = estimate(&tally, &request);
        let counting = tokio::task::spawn_blocking(move || {
            let counted_by = if tally.is_partial() { CountedBy::Estimated } else { CountedBy::Counted };
            (TokenUsage::text(request.count_input(&O200k), tally.count_output(&O200k)), counted_by)
        });
        let (usage, counted_by) = counting.await.unwrap_or((estimated, CountedBy::Estimated));
        self.hand_over(usage, counted_by, outcome);
    }

    fn hand_over(&mut self, usage: TokenUsage, counted_by: CountedBy, outcome: Outcome) {
        let Some(slot) = self.slot.take() else { return };
        self.event = UsageEvent { usage, counted_by, outcome, ended_at: self.clock.now(), ..self.event.clone() };
        let failed = matches!(outcome, Outcome::Failed | Outcome::UpstreamCut | Outcome::Deadline);
        genai::record(&self.span, &usage, outcome.as_str(), failed);
        meters::settled(&self.event);
        let span = tracing::info_span!(parent: &self.span, "settle", otel.name = "send trivet:usage", otel.kind = "producer");
        let traceparent = span.in_scope(telemetry::current_traceparent);
        // Ids, numbers and instants: there is nothing that cannot be written.
        let event = serde_json::to_string(&self.event).unwrap_or_default();
        slot.send(Record { event, traceparent });
    }
}

/// The tokenizer of current models.
struct O200k;

impl llm::Tokenizer for O200k {
    fn count(&self, text: &str) -> u64 {
        tokenizer::count(text)
    }
}

/// Four bytes a token, for the ends that leave no time to count.
fn estimate(tally: &Tally, request: &ChatRequest) -> TokenUsage {
    TokenUsage::text(request.estimate_input(), tally.estimate_output())
}

impl Drop for Guard {
    /// Reached unsettled only by a panic or a runtime that stops: what is known must do.
    fn drop(&mut self) {
        if self.slot.is_none() {
            return;
        }
        let (usage, counted_by) = match (self.begun, self.tally.reported()) {
            (false, _) => (TokenUsage::default(), CountedBy::Counted),
            (true, Some(usage)) => (usage, CountedBy::Reported),
            (true, None) => (estimate(&self.tally, &self.request), CountedBy::Estimated),
        };
        let outcome = if self.begun { Outcome::Shutdown } else { Outcome::Failed };
        self.hand_over(usage, counted_by, outcome);
    }
}
