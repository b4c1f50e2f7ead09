//! The most that a request can take, and what it takes when nobody tells.

use serde_json::value::RawValue;

use super::ChatRequest;
use crate::json;
use crate::prompt::{Count, Counter, Tokenizer};

/// Tokens that a provider may add around a prompt and around each message.
const OVERHEAD: u64 = 64;
const OVERHEAD_PER_MESSAGE: u64 = 8;
/// Fields that say how to answer; everything else may stand before the model.
const PARAMETERS: [&str; 31] = [
    "audio",
    "frequency_penalty",
    "function_call",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

/// What a model may take, where the text does not tell.
#[derive(Debug, Clone, Copy)]
pub struct Allowances {
    /// Prompt and answer together, in tokens; no prompt is larger.
    pub context_window: u64,
    /// Longest answer, in tokens.
    pub max_output_tokens: u64,
    /// The most an image counts, in tokens.
    pub image_tokens: u64,
}

impl ChatRequest {
    /// The prompt can have no more tokens than this: a token is at least one byte of text. Every field counts that is not known to be
    /// none of the prompt; a parameter counts too where it is more than a single value.
    #[must_use]
    pub fn max_input_tokens(&self, allowances: &Allowances) -> u64 {
        if self.contents.opaque {
            return allowances.context_window;
        }
        let counts = |(name, raw): &(&str, &RawValue)| !PARAMETERS.contains(name) || json::is_compound(raw);
        let text: u64 = self.fields.iter().filter(counts).map(|(_, raw)| raw.get().len() as u64).sum();
        text.saturating_sub(self.contents.inline_image_bytes)
            .saturating_add(self.contents.images.saturating_mul(allowances.image_tokens))
            .saturating_add(self.contents.messages.saturating_mul(OVERHEAD_PER_MESSAGE) + OVERHEAD)
            .min(allowances.context_window)
    }

    /// All answers together can have no more tokens than this.
    #[must_use]
    pub fn max_output_tokens(&self, allowances: &Allowances) -> u64 {
        self.longest_answer(allowances).saturating_mul(self.choices)
    }

    /// The limit of each answer.
    pub(super) fn longest_answer(&self, allowances: &Allowances) -> u64 {
        self.max_tokens.unwrap_or(u64::MAX).min(allowances.max_output_tokens)
    }

    /// Counts the prompt by the published rule: exact, when it is messages of plain text. Images count the most they can; sound, files
    /// and what is not known make the whole prompt count what was reserved for it.
    #[must_use]
    pub fn count_input(&self, allowances: &Allowances, tokenizer: &impl Tokenizer) -> Count {
        let most = self.max_input_tokens(allowances);
        if self.is_uncountable() {
            return Count { tokens: most, exact: false };
        }
        let count = self.count_with(Counter::new(tokenizer, allowances.image_tokens));
        Count { tokens: count.tokens.min(most), ..count }
    }

    /// What the prompt counts at least: its text, and tools by theirs. Images, files and sound count nothing, for what they count is known
    /// from the provider's report alone.
    #[must_use]
    pub fn count_input_at_least(&self, allowances: &Allowances, tokenizer: &impl Tokenizer) -> u64 {
        self.count_with(Counter::of_text(tokenizer)).tokens.min(self.max_input_tokens(allowances))
    }

    fn count_with(&self, mut counter: Counter<'_, impl Tokenizer>) -> Count {
        for (name, value) in self.prompt() {
            if name == "messages" {
                counter.messages(value);
            } else {
                counter.other(value);
            }
        }
        counter.count()
    }

    /// The prompt's size without a tokenizer: four bytes a token, rounded up, and the rest as in [`Self::count_input`].
    #[must_use]
    pub fn estimate_input(&self, allowances: &Allowances) -> u64 {
        let most = self.max_input_tokens(allowances);
        if self.is_uncountable() {
            return most;
        }
        let text: u64 = self.prompt().map(|(_, value)| value.get().len() as u64).sum();
        let images = self.contents.images.saturating_mul(allowances.image_tokens);
        text.saturating_sub(self.contents.inline_image_bytes).div_ceil(4).saturating_add(images).min(most)
    }

    const fn is_uncountable(&self) -> bool {
        self.contents.opaque || self.contents.audio
    }

    /// The fields whose text stands before the model.
    fn prompt(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.fields.iter().filter(|(name, value)| !PARAMETERS.contains(name) && json::has_content(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCES: Allowances = Allowances { context_window: 100_000, max_output_tokens: 4_000, image_tokens: 1_000 };

    struct Words;

    impl Tokenizer for Words {
        fn count(&self, text: &str) -> u64 {
            text.split_whitespace().count() as u64
        }
    }

    fn request(content: &str, extra: &str) -> ChatRequest {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]{extra}}}"#);
        ChatRequest::parse(body.as_bytes()).expect("what the test gives is valid")
    }

    fn bound(content: &str, extra: &str) -> u64 {
        request(content, extra).max_input_tokens(&ALLOWANCES)
    }

    /// [trap 3]
    #[test]
    fn the_bound_of_the_prompt_covers_every_byte_of_text_and_the_context_window_covers_all() {
        let text = "x".repeat(5_000);
        assert!((5_000..5_200).contains(&bound(&format!("\"{text}\""), "")));
        assert_eq!(bound(&format!("\"{}\"", "x".repeat(200_000)), ""), 100_000);
        let image = format!(r#"[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{text}"}}}}]"#);
        assert!((1_000..1_300).contains(&bound(&image, "")), "{}", bound(&image, ""));
        let sound = format!(r#"[{{"type":"input_audio","input_audio":{{"data":"{text}"}}}}]"#);
        assert!((5_000..5_300).contains(&bound(&sound, "")), "{}", bound(&sound, ""));
    }

    /// [trap 3]
    #[test]
    fn parts_of_a_kind_that_is_not_known_may_fill_the_context_window() {
        for part in [r#"{"type":"file","file":{"file_id":"f"}}"#, r#"{"type":"video_url","video_url":{}}"#, r#"{"text":"a"}"#] {
            assert_eq!(bound(&format!("[{part}]"), ""), 100_000, "{part}");
        }
    }

    /// [trap 3]
    #[test]
    fn every_field_that_may_carry_text_is_in_the_bound_and_known_parameters_are_not() {
        let long = "x".repeat(5_000);
        let bare = bound("\"a\"", "");
        for field in ["documents", "chat_template", "data_sources", "response_format", "prediction", "invented"] {
            assert!(bound("\"a\"", &format!(r#","{field}":["{long}"]"#)) >= bare + 5_000, "{field}");
        }
        let tool = format!(r#","tools":[{{"type":"function","function":"{long}"}}]"#);
        assert!(bound("\"a\"", &tool) >= bare + 5_000);
        assert!(bound("\"a\"", &format!(r#","user":["{long}"]"#)) >= bare + 5_000, "a parameter of an unexpected kind");
        assert_eq!(bound("\"a\"", &format!(r#","user":"{long}","temperature":0.5,"stream":true"#)), bare);
    }

    /// [trap 3]
    #[test]
    fn the_bound_of_the_answer_is_the_smaller_of_model_and_wish_times_the_choices() {
        let bound = |extra: &str| request("\"a\"", extra).max_output_tokens(&ALLOWANCES);
        assert_eq!(bound(""), 4_000);
        assert_eq!(bound(r#","max_tokens":10,"n":3"#), 30);
        assert_eq!(bound(r#","max_completion_tokens":99999"#), 4_000);
        assert_eq!(bound(r#","max_tokens":10,"max_completion_tokens":20"#), 20);
    }

    fn counted(content: &str, extra: &str) -> (u64, bool) {
        let count = request(content, extra).count_input(&ALLOWANCES, &Words);
        (count.tokens, count.exact)
    }

    /// [trap 6]
    #[test]
    fn plain_text_is_counted_exactly_whatever_parameters_come_with_it() {
        let parameters =
            r#","stream":true,"stream_options":{"include_usage":true},"metadata":{"a":"b"},"top_k":4,"repetition_penalty":1.5,"tools":[]"#;
        assert_eq!(counted("\"one two\"", parameters), (3 + 1 + 2 + 3, true));
    }

    /// [trap 6]
    #[test]
    fn tools_formats_and_unknown_fields_are_counted_and_make_the_count_an_estimate() {
        for field in ["response_format", "documents"] {
            assert_eq!(counted("\"one\"", &format!(r#","{field}":["a b c"]"#)), (3 + 1 + 1 + 3 + 3, false), "{field}");
        }
        for list in [r#""tools":[{"type":"function","function":"a b c"}]"#, r#""functions":[{"name":"f","description":"a b c"}]"#] {
            assert_eq!(counted("\"one\"", &format!(",{list}")), (3 + 1 + 1 + 3 + 3, false), "{list}");
        }
        let image = r#"[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]"#;
        assert_eq!(counted(image, ""), (3 + 1 + 1_000 + 3, false));
    }

    /// [trap 6]
    #[test]
    fn what_cannot_be_counted_counts_what_was_reserved_for_the_prompt() {
        let sound = r#"[{"type":"text","text":"a"},{"type":"input_audio","input_audio":{"data":"aaaa"}}]"#;
        assert_eq!(counted(sound, ""), (bound(sound, ""), false));
        assert_eq!(counted(r#"[{"type":"file","file":{}}]"#, ""), (100_000, false));
    }

    /// [B-43]
    #[test]
    fn what_a_prompt_counts_at_least_is_its_text_and_not_what_was_reserved_for_a_file() {
        let content =
            r#"[{"type":"text","text":"a b"},{"type":"file","file":{"file_data":"c d e"}},{"type":"input_audio","input_audio":{}}]"#;
        let tools = r#","tools":[{"type":"function","function":"a b c"}]"#;
        let at_least = |extra| request(content, extra).count_input_at_least(&ALLOWANCES, &Words);
        assert_eq!((at_least(""), at_least(tools)), (3 + 1 + 2 + 3, 3 + 1 + 2 + 3 + 3));
    }

    /// [trap 6]
    #[test]
    fn an_estimate_without_a_tokenizer_covers_the_same_fields() {
        let estimate = |content: &str, extra: &str| request(content, extra).estimate_input(&ALLOWANCES);
        let bare = estimate("\"a\"", "");
        assert!(estimate("\"a\"", &format!(r#","functions":[{{"name":"{}"}}]"#, "x".repeat(4_000))) >= bare + 1_000);
        let image = format!(r#"[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}]"#, "x".repeat(40_000));
        assert!((1_000..1_100).contains(&estimate(&image, "")), "{}", estimate(&image, ""));
        assert_eq!(estimate(r#"[{"type":"file","file":{}}]"#, ""), 100_000);
    }
}
