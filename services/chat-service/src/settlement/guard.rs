//! Settles a completion when it is told to, or when it is dropped.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use admission::{Admissions, End};
use chassis::{Clock, telemetry};
use contracts::usage::{CountedBy, Outcome, UsageEvent};
use llm::{Allowances, ChatRequest, Count, Tally};
use money::TokenUsage;
use tracing::Span;

use super::{Checkpoints, Known, Record, Slot};
use crate::genai;
use crate::meters;

/// What a prompt is counted from.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The request.
    pub request: Arc<ChatRequest>,
    /// What its model may take.
    pub allowances: Allowances,
    /// Images that are paid by the piece: no provider reports how many they are.
    images: u64,
    /// What its text counts, once that is known: a prompt does not change while its answer comes.
    text: Arc<OnceLock<u64>>,
}

/// Holds a place in the queue and what is known about the completion so far.
#[derive(Debug)]
pub struct Guard {
    slot: Option<Slot>,
    known: Known,
    /// What the provider's answer said so far.
    pub tally: Tally,
    prompt: Prompt,
    clock: Clock,
    span: Span,
    /// Whether the provider has begun to answer: only then is there something to charge.
    pub begun: bool,
}

impl Guard {
    /// A guard for a completion that is about to begin.
    #[must_use]
    pub fn new(slot: Slot, known: Known, tally: Tally, prompt: Prompt, clock: Clock, span: Span) -> Self {
        meters::admitted();
        Self { slot: Some(slot), known, tally, prompt, clock, span, begun: false }
    }

    /// What keeps count of a stream while it lasts.
    #[must_use]
    pub fn checkpoints(&self, admissions: &Admissions, every: Duration) -> Checkpoints {
        let event = &self.known.event;
        Checkpoints::new(admissions.clone(), event.organization_id, event.request_id, self.prompt.clone(), every)
    }

    /// Nothing was generated: what was taken is released and nothing is charged.
    pub fn release(mut self, outcome: Outcome) {
        self.hand_over(TokenUsage::default(), CountedBy::Counted, outcome);
    }

    /// Settles with the provider's count, or else by counting what came, off the async threads.
    pub async fn settle(mut self, outcome: Outcome) {
        if !self.begun || self.failed_before_content(outcome) {
            return self.release(outcome);
        }
        if let Some(usage) = self.tally.reported() {
            return self.hand_over(usage, CountedBy::Reported, outcome);
        }
        let (tally, prompt) = (std::mem::take(&mut self.tally), self.prompt.clone());
        let estimated = prompt.estimate(&tally);
        let counting = tokio::task::spawn_blocking(move || prompt.count(&tally));
        let (usage, counted_by) = counting.await.unwrap_or((estimated, CountedBy::Estimated));
        self.hand_over(usage, counted_by, outcome);
    }

    /// Whether the provider failed its client before it generated anything, though it had begun to answer: no one should pay for that,
    /// and whether it shows before or behind the first frame is a matter of how bytes were cut. A client that left is no such case.
    fn failed_before_content(&self, outcome: Outcome) -> bool {
        let failed = matches!(outcome, Outcome::UpstreamCut | Outcome::Deadline);
        failed && !self.tally.has_text() && self.tally.reported().is_none()
    }

    /// The call was ended before anything came, because its client had left. What the provider charges us for it cannot be known; most
    /// have read the prompt by then. So the prompt is charged, as an estimate, and no output: none was delivered.
    pub async fn give_up(mut self, outcome: Outcome) {
        let (nothing, prompt) = (Tally::default(), self.prompt.clone());
        let estimated = prompt.estimate(&nothing);
        let (usage, _) = tokio::task::spawn_blocking(move || prompt.count(&nothing)).await.unwrap_or((estimated, CountedBy::Estimated));
        self.hand_over(usage, CountedBy::Estimated, outcome);
    }

    fn hand_over(&mut self, usage: TokenUsage, counted_by: CountedBy, outcome: Outcome) {
        let Some(slot) = self.slot.take() else { return };
        let usage = self.prompt.priced(usage);
        let event = UsageEvent { usage, counted_by, outcome, ended_at: self.clock.now(), ..self.known.event.clone() };
        // What does not fit into an amount is not spent here: billing-service refuses it, and somebody looks at it.
        let price = self.known.price.amount(&usage).unwrap_or(event.reserved_micros);
        let failed = matches!(outcome, Outcome::Failed | Outcome::UpstreamCut | Outcome::Deadline);
        genai::record(&self.span, &usage, outcome.as_str(), failed);
        meters::settled(&event);
        let span = tracing::info_span!(parent: &self.span, "settle", otel.name = "EVALSHA settle", otel.kind = "producer");
        let traceparent = span.in_scope(telemetry::current_traceparent);
        let counted = std::mem::take(&mut self.known.counted);
        chassis::step!("settlement.known");
        slot.send(Record { event, price, counted, end: End::Used, traceparent, first_told: None, taken: false });
        chassis::step!("settlement.handed_over");
    }
}

/// The tokenizer of current models.
struct O200k;

impl llm::Tokenizer for O200k {
    fn count(&self, text: &str) -> u64 {
        tokenizer::count(text)
    }
}

/// The same as long as its table is not there: no more than there are.
struct O200kAtLeast;

impl llm::Tokenizer for O200kAtLeast {
    fn count(&self, text: &str) -> u64 {
        tokenizer::count_at_least(text)
    }
}

impl Prompt {
    /// Of a request.
    #[must_use]
    pub fn new(request: Arc<ChatRequest>, allowances: Allowances) -> Self {
        Self { request, allowances, images: 0, text: Arc::default() }
    }

    /// With so many images that are paid by the piece.
    #[must_use]
    pub fn with_images(self, images: u64) -> Self {
        Self { images, ..self }
    }

    /// By the tokenizer; what is no text is estimated, and no estimate is more than was reserved.
    fn count(&self, tally: &Tally) -> (TokenUsage, CountedBy) {
        let (input, output) = (self.request.count_input(&self.allowances, &O200k), self.count_output(tally, &O200k));
        let counted_by = if input.exact && output.exact { CountedBy::Counted } else { CountedBy::Estimated };
        (TokenUsage::text(input.tokens, output.tokens), counted_by)
    }

    /// What there is at least so far, which is what is charged if this process dies: no image and no file, whose size only the provider
    /// knows. It does not wait for the tokenizer, whose table takes seconds to build: until it is there, text counts what it must.
    pub(super) fn count_so_far(&self, tally: &Tally) -> TokenUsage {
        if tokenizer::is_ready() {
            let input = *self.text.get_or_init(|| self.request.count_input_at_least(&self.allowances, &O200k));
            return TokenUsage::text(input, self.count_output(tally, &O200k).tokens);
        }
        tokenizer::prepare();
        let input = self.request.count_input_at_least(&self.allowances, &O200kAtLeast);
        TokenUsage::text(input, self.count_output(tally, &O200kAtLeast).tokens)
    }

    /// With what is paid by the piece, where anything is paid at all.
    pub(super) const fn priced(&self, usage: TokenUsage) -> TokenUsage {
        if usage.is_nothing() { usage } else { TokenUsage { images: self.images, ..usage } }
    }

    fn count_output(&self, tally: &Tally, tokenizer: &impl llm::Tokenizer) -> Count {
        let Count { tokens, exact } = tally.count_output(tokenizer);
        Count { tokens: if exact { tokens } else { tokens.min(self.request.max_output_tokens(&self.allowances)) }, exact }
    }

    /// Four bytes a token, for the ends that leave no time to count.
    fn estimate(&self, tally: &Tally) -> TokenUsage {
        let output = tally.estimate_output().min(self.request.max_output_tokens(&self.allowances));
        TokenUsage::text(self.request.estimate_input(&self.allowances), output)
    }
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
            (true, None) => (self.prompt.estimate(&self.tally), CountedBy::Estimated),
        };
        let outcome = if self.begun { Outcome::Shutdown } else { Outcome::Failed };
        self.hand_over(usage, counted_by, outcome);
    }
}
