//! What a model call consumed, in the dimensions that a rate card prices.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Tokens of one model call, by the rate that applies to them.
///
/// The dimensions are disjoint: `input_tokens` does not contain the cached ones, `output_tokens` does not contain the
/// reasoning ones. Providers disagree about that (`OpenAI`'s prompt count includes cached tokens, Anthropic's does not),
/// so whoever reads a provider's answer normalizes once, at the edge; the total of all fields is what was processed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenUsage {
    /// Prompt tokens at the full input rate.
    pub input_tokens: u64,
    /// Prompt tokens read from the provider's cache.
    pub cached_input_tokens: u64,
    /// Prompt tokens written to the provider's cache for its usual time (five minutes).
    pub cache_write_tokens: u64,
    /// Prompt tokens written to the provider's cache for an hour.
    pub cache_write_1h_tokens: u64,
    /// Generated tokens, without reasoning and audio.
    pub output_tokens: u64,
    /// Generated tokens the client does not see (hidden reasoning).
    pub reasoning_tokens: u64,
    /// Audio tokens of the prompt.
    pub audio_input_tokens: u64,
    /// Audio tokens generated.
    pub audio_output_tokens: u64,
    /// Images that are paid by the piece, in the prompt or generated; those that a provider counts as tokens are tokens.
    pub images: u64,
}

impl TokenUsage {
    /// Plain text usage: nothing cached, no reasoning, no audio.
    #[must_use]
    pub const fn text(input_tokens: u64, output_tokens: u64) -> Self {
        Self {
            input_tokens,
            cached_input_tokens: 0,
            cache_write_tokens: 0,
            cache_write_1h_tokens: 0,
            output_tokens,
            reasoning_tokens: 0,
            audio_input_tokens: 0,
            audio_output_tokens: 0,
            images: 0,
        }
    }

    /// Whether nothing was used at all: such a request costs nothing, not even the fee of a request.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.total_input() == 0 && self.total_output() == 0 && self.images == 0
    }

    /// All prompt tokens together, saturating.
    #[must_use]
    pub const fn total_input(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cached_input_tokens)
            .saturating_add(self.cache_write_tokens)
            .saturating_add(self.cache_write_1h_tokens)
            .saturating_add(self.audio_input_tokens)
    }

    /// All generated tokens together, saturating.
    #[must_use]
    pub const fn total_output(&self) -> u64 {
        self.output_tokens.saturating_add(self.reasoning_tokens).saturating_add(self.audio_output_tokens)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Events of an older version, which knows fewer dimensions, are still read.
    #[test]
    fn a_dimension_that_an_older_event_does_not_know_is_zero() {
        // serde's own reader of pairs: this crate needs no JSON.
        let pairs = [("input_tokens", 1_u64), ("cache_write_tokens", 3)];
        let deserializer = serde::de::value::MapDeserializer::<_, serde::de::value::Error>::new(pairs.into_iter());
        let usage = <super::TokenUsage as serde::Deserialize>::deserialize(deserializer).unwrap();
        assert_eq!((usage.input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens, usage.images), (1, 3, 0, 0));
    }

    proptest! {
        #[test]
        fn nothing_is_only_what_has_no_unit_in_any_dimension(input in 0..2_u64, write in 0..2_u64, output in 0..2_u64, images in 0..2_u64) {
            let usage = super::TokenUsage { cache_write_1h_tokens: write, images, ..super::TokenUsage::text(input, output) };
            prop_assert_eq!(usage.is_nothing(), input + write + output + images == 0);
        }
    }
}
