//! The provider's own count, normalized once.
//!
//! `OpenAI`'s convention: `prompt_tokens` contains the cached, the cache-written and the audio tokens, `completion_tokens` contains the
//! reasoning and the audio tokens. [`TokenUsage`] is disjoint, so the parts are taken out here and nowhere else. What was written to a cache has
//! two names: `OpenAI`'s and `OpenRouter`'s `cache_write_tokens`, and Anthropic's `cache_creation_input_tokens`, which `LiteLLM` and others pass on.

use money::TokenUsage;
use serde::Deserialize;

/// `usage` as it comes; only the totals are required.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct WireUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation: Option<CacheCreation>,
}

/// How much of what was written stays for how long.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct CacheCreation {
    #[serde(default)]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[expect(clippy::struct_field_names, reason = "they are the provider's")]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
}

impl From<WireUsage> for TokenUsage {
    fn from(wire: WireUsage) -> Self {
        let prompt = wire.prompt_tokens_details.unwrap_or_default();
        let completion = wire.completion_tokens_details.unwrap_or_default();
        // A part is never more than its total, whatever a provider says: the total is what is charged.
        let cached = prompt.cached_tokens.unwrap_or(0).min(wire.prompt_tokens);
        // Of several names for one thing some may be there and say nothing.
        let written = [prompt.cache_write_tokens, prompt.cache_creation_tokens, wire.cache_creation_input_tokens];
        let written = written.into_iter().flatten().max().unwrap_or(0).min(wire.prompt_tokens - cached);
        let written_1h = wire.cache_creation.unwrap_or_default().ephemeral_1h_input_tokens.unwrap_or(0).min(written);
        let audio_input = prompt.audio_tokens.unwrap_or(0).min(wire.prompt_tokens - cached - written);
        let reasoning = completion.reasoning_tokens.unwrap_or(0).min(wire.completion_tokens);
        let audio_output = completion.audio_tokens.unwrap_or(0).min(wire.completion_tokens - reasoning);
        Self {
            input_tokens: wire.prompt_tokens - cached - written - audio_input,
            cached_input_tokens: cached,
            cache_write_tokens: written - written_1h,
            cache_write_1h_tokens: written_1h,
            output_tokens: wire.completion_tokens - reasoning - audio_output,
            reasoning_tokens: reasoning,
            audio_input_tokens: audio_input,
            audio_output_tokens: audio_output,
            images: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> TokenUsage {
        serde_json::from_str::<WireUsage>(json).expect("what the test gives is valid").into()
    }

    /// [trap 7]
    #[test]
    fn cached_reasoning_and_audio_tokens_are_taken_out_of_the_totals_once() {
        let usage = read(
            r#"{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,
                "prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":6},
                "completion_tokens_details":{"reasoning_tokens":192,"audio_tokens":8,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#,
        );
        let expected = TokenUsage {
            input_tokens: 80,
            cached_input_tokens: 1920,
            audio_input_tokens: 6,
            output_tokens: 100,
            reasoning_tokens: 192,
            audio_output_tokens: 8,
            ..TokenUsage::default()
        };
        assert_eq!(usage, expected);
        assert_eq!((usage.total_input(), usage.total_output()), (2006, 300));
    }

    /// [trap 7]
    #[test]
    fn what_was_written_to_a_cache_is_taken_out_of_the_prompt_by_whichever_name_it_has() {
        let of = |input, cached, write, hour| TokenUsage {
            input_tokens: input,
            cached_input_tokens: cached,
            cache_write_tokens: write,
            cache_write_1h_tokens: hour,
            ..TokenUsage::text(0, 1)
        };
        for (details, expected) in [
            (r#""prompt_tokens_details":{"cached_tokens":30,"cache_write_tokens":50}"#, of(20, 30, 50, 0)),
            (r#""prompt_tokens_details":{"cache_creation_tokens":50}"#, of(50, 0, 50, 0)),
            (r#""cache_creation_input_tokens":50,"cache_read_input_tokens":0"#, of(50, 0, 50, 0)),
            (
                r#""cache_creation_input_tokens":50,"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":40}"#,
                of(50, 0, 10, 40),
            ),
            (
                r#""prompt_tokens_details":{"cache_write_tokens":null},"cache_creation_input_tokens":null,"cache_creation":null"#,
                of(100, 0, 0, 0),
            ),
            (r#""cache_creation":{"ephemeral_1h_input_tokens":40}"#, of(100, 0, 0, 0)),
            (
                r#""prompt_tokens_details":{"cache_write_tokens":0,"cache_creation_tokens":50},"cache_creation_input_tokens":50"#,
                of(50, 0, 50, 0),
            ),
        ] {
            assert_eq!(read(&format!(r#"{{"prompt_tokens":100,"completion_tokens":1,{details}}}"#)), expected, "{details}");
        }
    }

    #[test]
    fn a_part_larger_than_its_total_does_not_make_the_total_larger() {
        let usage = read(
            r#"{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":9,"cache_write_tokens":4,"audio_tokens":3},
                "cache_creation":{"ephemeral_1h_input_tokens":7}}"#,
        );
        assert_eq!((usage.total_input(), usage.total_output()), (5, 2));
    }

    /// [trap 5]
    #[test]
    fn zero_is_a_count_and_null_details_are_none() {
        assert_eq!(read(r#"{"prompt_tokens":0,"completion_tokens":0,"prompt_tokens_details":null}"#), TokenUsage::default());
        assert!(serde_json::from_str::<WireUsage>("{}").is_err());
    }
}
