//! The provider's own count, normalized once.
//!
//! `OpenAI`'s convention: `prompt_tokens` contains the cached, the cache-written and the audio tokens, `completion_tokens` contains the
//! reasoning and the audio tokens. [`TokenUsage`] is disjoint, so the parts are taken out here and nowhere else. What was written to a cache has
//! two names: `OpenAI`'s and `OpenRouter`'s `cache_write_tokens`, and Anthropic's `cache_creation_input_tokens`, which `LiteLLM` and others pass on.
//! xAI and some translators of Gemini report reasoning beside `completion_tokens`; that shows in `total_tokens`, which contains it.

use money::TokenUsage;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `usage` as it comes; only the totals are required.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct WireUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    #[serde(default, deserialize_with = "if_readable")]
    total_tokens: Option<u64>,
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
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
    /// Where `LiteLLM` puts what Anthropic calls `cache_creation`.
    #[serde(default, deserialize_with = "if_readable")]
    cache_creation_token_details: Option<CacheCreation>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
}

/// What only adds to the count must not make the whole of it unreadable.
fn if_readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Value::deserialize(deserializer).map(|value| serde_json::from_value(value).ok())
}

impl WireUsage {
    /// The answer with its reasoning, and the reasoning. Reasoning is no part of `completion_tokens` where it is larger, or where
    /// `total_tokens` has room for it beside them; what it has room for without being named is nothing else, as far as is known.
    fn completion(&self) -> (u64, u64) {
        let named = self.completion_tokens_details.and_then(|details| details.reasoning_tokens).unwrap_or(0);
        let sum = self.prompt_tokens.saturating_add(self.completion_tokens);
        let outside = self.total_tokens.unwrap_or(0).saturating_sub(sum);
        match named {
            // Translators of Anthropic and Bedrock may leave what was cached out of the prompt and not of the total.
            _ if named <= self.completion_tokens && outside == self.cached().saturating_add(self.written()) => {
                (self.completion_tokens, named)
            }
            0 => (self.completion_tokens.saturating_add(outside), outside),
            _ if named > self.completion_tokens || outside >= named => (self.completion_tokens.saturating_add(named), named),
            _ => (self.completion_tokens, named),
        }
    }

    fn cached(&self) -> u64 {
        self.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0)
    }

    /// Of several names for one thing some may be there and say nothing.
    fn written(&self) -> u64 {
        let details = self.prompt_tokens_details.unwrap_or_default();
        let names = [details.cache_write_tokens, details.cache_creation_tokens, self.cache_creation_input_tokens];
        names.into_iter().flatten().max().unwrap_or(0)
    }

    /// What was written to a cache to stay for an hour.
    fn written_1h(&self) -> u64 {
        let details = self.prompt_tokens_details.and_then(|details| details.cache_creation_token_details);
        [self.cache_creation, details].into_iter().flatten().filter_map(|written| written.ephemeral_1h_input_tokens).max().unwrap_or(0)
    }
}

impl From<WireUsage> for TokenUsage {
    fn from(wire: WireUsage) -> Self {
        let prompt = wire.prompt_tokens_details.unwrap_or_default();
        let (completion, reasoning) = wire.completion();
        // A part is never more than its total, whatever a provider says: the total is what is charged.
        let cached = wire.cached().min(wire.prompt_tokens);
        let written = wire.written().min(wire.prompt_tokens - cached);
        let written_1h = wire.written_1h().min(written);
        let audio_input = prompt.audio_tokens.unwrap_or(0).min(wire.prompt_tokens - cached - written);
        let spoken = wire.completion_tokens_details.and_then(|details| details.audio_tokens).unwrap_or(0);
        let audio_output = spoken.min(completion - reasoning);
        Self {
            input_tokens: wire.prompt_tokens - cached - written - audio_input,
            cached_input_tokens: cached,
            cache_write_tokens: written - written_1h,
            cache_write_1h_tokens: written_1h,
            output_tokens: completion - reasoning - audio_output,
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
                r#""prompt_tokens_details":{"cached_tokens":30,"cache_creation_tokens":50,
                    "cache_creation_token_details":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":40}},"cache_creation_input_tokens":50"#,
                of(20, 30, 10, 40),
            ),
            (
                r#""prompt_tokens_details":{"cache_creation_tokens":50,"cache_creation_token_details":{"ephemeral_1h_input_tokens":40}},
                    "cache_creation":{"ephemeral_1h_input_tokens":0}"#,
                of(50, 0, 10, 40),
            ),
            (r#""prompt_tokens_details":{"cache_creation_tokens":50,"cache_creation_token_details":"none"}"#, of(50, 0, 50, 0)),
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

    /// [trap 7]
    #[test]
    fn reasoning_that_is_reported_beside_the_completion_is_not_given_away() {
        let read = |prompt: u64, completion: u64, rest: &str| {
            let usage = read(&format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion}{rest}}}"#));
            (usage.output_tokens, usage.reasoning_tokens, usage.audio_output_tokens)
        };
        for (prompt, completion, rest, expected) in [
            // xAI.
            (12, 1, r#","total_tokens":399,"completion_tokens_details":{"reasoning_tokens":386,"audio_tokens":0}"#, (1, 386, 0)),
            (12, 400, r#","total_tokens":798,"completion_tokens_details":{"reasoning_tokens":386,"audio_tokens":7}"#, (393, 386, 7)),
            // Translators of Gemini.
            (21, 0, r#","total_tokens":81,"completion_tokens_details":{"reasoning_tokens":60}"#, (0, 60, 0)),
            (21, 5, r#","total_tokens":86"#, (5, 60, 0)),
            (21, 5, r#","total_tokens":86,"completion_tokens_details":{"reasoning_tokens":0}"#, (5, 60, 0)),
            // OpenAI, and others that leave something out.
            (21, 65, r#","total_tokens":86,"completion_tokens_details":{"reasoning_tokens":60}"#, (5, 60, 0)),
            (21, 65, r#","total_tokens":90,"completion_tokens_details":{"reasoning_tokens":60}"#, (5, 60, 0)),
            (21, 65, r#","completion_tokens_details":{"reasoning_tokens":65}"#, (0, 65, 0)),
            (21, 65, r#","total_tokens":0,"completion_tokens_details":{"reasoning_tokens":60}"#, (5, 60, 0)),
            (21, 5, r#","completion_tokens_details":{"reasoning_tokens":60}"#, (5, 60, 0)),
            (21, 65, r#","total_tokens":80"#, (65, 0, 0)),
            // What is beyond the sum is what was cached, and no reasoning.
            (21, 65, r#","total_tokens":1086,"prompt_tokens_details":{"cached_tokens":600,"cache_creation_tokens":400}"#, (65, 0, 0)),
            (
                20,
                100,
                r#","total_tokens":720,"completion_tokens_details":{"reasoning_tokens":60},"prompt_tokens_details":{"cached_tokens":600}"#,
                (40, 60, 0),
            ),
            (21, 65, r#","total_tokens":null"#, (65, 0, 0)),
            (21, 65, r#","total_tokens":"90""#, (65, 0, 0)),
        ] {
            assert_eq!(read(prompt, completion, rest), expected, "{prompt} {completion} {rest}");
        }
    }

    #[test]
    fn no_numbers_are_too_large_to_be_split() {
        const MAX: u64 = u64::MAX;
        for (prompt, completion, total, reasoning) in
            [(MAX, MAX, MAX, MAX), (0, 0, MAX, 0), (1, 1, MAX, MAX), (MAX, 1, MAX, 2), (0, MAX, 0, 1), (MAX, MAX, 0, 0)]
        {
            let usage = read(&format!(
                r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},
                    "completion_tokens_details":{{"reasoning_tokens":{reasoning},"audio_tokens":{MAX}}}}}"#
            ));
            assert!(usage.input_tokens == prompt && usage.total_output() >= completion, "{usage:?}");
        }
    }

    /// [trap 5]
    #[test]
    fn zero_is_a_count_and_null_details_are_none() {
        assert_eq!(read(r#"{"prompt_tokens":0,"completion_tokens":0,"prompt_tokens_details":null}"#), TokenUsage::default());
        assert!(serde_json::from_str::<WireUsage>("{}").is_err());
    }
}
