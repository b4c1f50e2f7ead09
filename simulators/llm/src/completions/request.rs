//! What is asked, and what the answer will be.

use serde::Deserialize;

use crate::knobs::Knobs;
use crate::ledger::Entry;
use crate::models;
use crate::prompt::{self, Message};
use crate::wire::{FinishReason, Refusal};

const MAX_CHOICES: u64 = 128;

/// The fields that matter here; any other is welcome.
#[derive(Debug, Deserialize)]
struct Request {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    n: Option<u64>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// An answer before it is given.
#[derive(Debug)]
pub(super) struct Answer {
    /// The answer's own id.
    pub(super) id: String,
    pub(super) model: &'static str,
    pub(super) stream: bool,
    /// Whether a stream is to end with its usage.
    pub(super) include_usage: bool,
    pub(super) choices: u64,
    pub(super) input_tokens: u64,
    /// Of each choice.
    pub(super) output_tokens: u64,
    pub(super) finish_reason: FinishReason,
}

impl Answer {
    /// Reads a request and decides what the answer is.
    pub(super) fn plan(body: &[u8], knobs: &Knobs, entry: &mut Entry) -> Result<Self, Refusal> {
        let request: Request = serde_json::from_slice(body).map_err(|error| Refusal::invalid(None, error.to_string()))?;
        entry.set_model(&request.model);
        let model = models::by_id(&request.model)?;
        let choices = request.n.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&choices) {
            return Err(Refusal::invalid(Some("n"), format!("n must be from 1 to {MAX_CHOICES}.")));
        }
        let allowed = request.max_completion_tokens.or(request.max_tokens).unwrap_or(u64::MAX).min(model.max_output_tokens);
        if allowed == 0 || request.messages.is_empty() {
            return Err(Refusal::invalid(None, "There must be messages, and room for an answer.".to_owned()));
        }
        let (output_tokens, finish_reason) = match knobs.output_tokens {
            wanted if wanted > allowed => (allowed, FinishReason::Length),
            wanted => (wanted, FinishReason::Stop),
        };
        Ok(Self {
            id: format!("chatcmpl-sim{}", entry.number()),
            model: model.id,
            stream: request.stream.unwrap_or(false),
            include_usage: request.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
            choices,
            input_tokens: knobs.input_tokens.unwrap_or_else(|| prompt::count(&request.messages)),
            output_tokens,
            finish_reason,
        })
    }
}
