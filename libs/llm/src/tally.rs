//! What a provider's answer says about itself: its usage, its text (for counting when no usage comes), its end.

use std::borrow::Cow;
use std::collections::BTreeMap;

use money::TokenUsage;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::prompt::Tokenizer;
use crate::sse::DONE;
use crate::usage::WireUsage;

/// What is to be done with an event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Forward,
    /// It holds nothing but the usage: for the client only if it asked.
    Usage,
    /// The provider says that the stream is over.
    Done,
    /// The provider says that something went wrong.
    Error,
}

/// Watches an answer; bounded in memory.
#[derive(Debug, Default)]
pub struct Tally {
    usage: Option<TokenUsage>,
    usage_is_final: bool,
    done: bool,
    texts: BTreeMap<u32, String>,
    kept: usize,
    beyond: usize,
    text_limit: usize,
}

/// One event, or a whole answer: they differ in `delta` and `message`.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default, alias = "message")]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

impl Tally {
    /// A tally that keeps up to `text_limit` bytes of text for counting [trap 14].
    #[must_use]
    pub fn new(text_limit: usize) -> Self {
        Self { text_limit, ..Self::default() }
    }

    /// Watches an event of a stream.
    pub fn event(&mut self, data: &[u8]) -> Verdict {
        if data == DONE {
            self.done = true;
            return Verdict::Done;
        }
        // What is no JSON is passed on: it is not for us to judge.
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(data) else { return Verdict::Forward };
        let alone = answer.choices.as_ref().is_none_or(Vec::is_empty);
        let has_usage = self.observe(&answer);
        match answer.error {
            Some(_) => Verdict::Error,
            None if has_usage && alone => {
                self.usage_is_final = true;
                Verdict::Usage
            }
            None => Verdict::Forward,
        }
    }

    /// Watches a whole answer; false when it is none.
    pub fn whole(&mut self, body: &[u8]) -> bool {
        match serde_json::from_slice::<Answer<'_>>(body) {
            Ok(answer) if answer.error.is_none() => {
                self.observe(&answer);
                self.done = true;
            }
            _ => {}
        }
        self.done
    }

    /// Takes text and usage; whether there was a usage that is not null. The last one wins, also when it is zero.
    fn observe(&mut self, answer: &Answer<'_>) -> bool {
        for choice in answer.choices.iter().flatten() {
            let Some(delta) = &choice.delta else { continue };
            let functions = delta.tool_calls.iter().flatten().filter_map(|call| call.function.as_ref());
            let of_calls = functions.flat_map(|function| [function.name, function.arguments]);
            let texts = [delta.content, delta.refusal, delta.reasoning_content].into_iter().chain(of_calls).flatten();
            for raw in texts {
                if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(raw.get()) {
                    self.keep(choice.index.unwrap_or(0), &text);
                }
            }
        }
        let usage = answer.usage.and_then(|raw| serde_json::from_str::<WireUsage>(raw.get()).ok());
        if let Some(usage) = usage {
            self.usage = Some(usage.into());
        }
        usage.is_some()
    }

    fn keep(&mut self, choice: u32, text: &str) {
        if self.kept + text.len() > self.text_limit {
            self.beyond += text.len();
        } else if !text.is_empty() {
            self.kept += text.len();
            self.texts.entry(choice).or_default().push_str(text);
        }
    }

    /// Whether the provider said that its answer is complete.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done
    }

    /// Whether any text came.
    #[must_use]
    pub const fn has_text(&self) -> bool {
        self.kept + self.beyond > 0
    }

    /// Whether more text came than was kept, so that counting it is an estimate.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.beyond > 0
    }

    /// The provider's own count, if it is the final one: a count on the way to a broken end is not. No output for an answer
    /// with text is not believed either [trap 6].
    #[must_use]
    pub fn reported(&self) -> Option<TokenUsage> {
        let is_final = self.done || self.usage_is_final;
        self.usage.filter(|usage| is_final && (usage.total_output() > 0 || !self.has_text()))
    }

    /// Counts the answer's text.
    #[must_use]
    pub fn count_output(&self, tokenizer: &impl Tokenizer) -> u64 {
        let kept: u64 = self.texts.values().map(|text| tokenizer.count(text)).sum();
        kept + estimate(self.beyond)
    }

    /// The answer's text without a tokenizer: four bytes a token, rounded up.
    #[must_use]
    pub const fn estimate_output(&self) -> u64 {
        estimate(self.kept + self.beyond)
    }
}

const fn estimate(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words;

    impl Tokenizer for Words {
        fn count(&self, text: &str) -> u64 {
            text.split_whitespace().count() as u64
        }
    }

    fn tally(events: &[&str]) -> (Tally, Vec<Verdict>) {
        let mut tally = Tally::new(1000);
        let verdicts = events.iter().map(|event| tally.event(event.as_bytes())).collect();
        (tally, verdicts)
    }

    const TEXT: &str = r#"{"choices":[{"index":0,"delta":{"content":"one two"}}],"usage":null}"#;
    const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#;

    /// [trap 5]
    #[test]
    fn usage_counts_only_when_it_is_not_null_and_the_last_one_wins() {
        let early = r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}],"usage":{"prompt_tokens":7,"completion_tokens":0}}"#;
        let (tally, verdicts) = tally(&[early, TEXT, USAGE, "[DONE]"]);
        assert_eq!(verdicts, [Verdict::Forward, Verdict::Forward, Verdict::Usage, Verdict::Done]);
        assert_eq!(tally.reported(), Some(TokenUsage::text(7, 2)));
    }

    /// [trap 5]
    #[test]
    fn frames_without_choices_are_only_dropped_when_they_hold_usage() {
        let (_, verdicts) = tally(&[r#"{"choices":[],"prompt_filter_results":[],"usage":null}"#, r#"{"choices":[]}"#, "not json"]);
        assert_eq!(verdicts, [Verdict::Forward; 3]);
    }

    /// [trap 6] [trap 14]
    #[test]
    fn a_count_on_the_way_to_a_broken_end_is_not_believed() {
        let running = r#"{"choices":[{"index":0,"delta":{"content":" three"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}"#;
        let (tally, _) = tally(&[TEXT, running]);
        assert_eq!((tally.reported(), tally.count_output(&Words)), (None, 3));
        assert!(!tally.is_done());
    }

    /// [trap 6]
    #[test]
    fn zero_output_is_a_count_without_text_and_not_with_it() {
        let zero = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":0}}"#;
        assert_eq!(tally(&[zero, "[DONE]"]).0.reported(), Some(TokenUsage::text(7, 0)));
        assert_eq!(tally(&[TEXT, zero, "[DONE]"]).0.reported(), None);
    }

    /// [trap 6]
    #[test]
    fn text_of_every_kind_and_choice_is_counted() {
        let (tally, _) = tally(&[
            TEXT,
            r#"{"choices":[{"index":1,"delta":{"refusal":"no no no"}},{"index":0,"delta":{"reasoning_content":" hm"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":" f","arguments":" {}"}}]}}]}"#,
        ]);
        assert_eq!(tally.count_output(&Words), 3 + 3 + 2);
    }

    #[test]
    fn an_error_in_the_stream_is_seen() {
        assert_eq!(tally(&[r#"{"error":{"message":"overloaded"}}"#]).1, [Verdict::Error]);
    }

    #[test]
    fn a_whole_answer_tells_usage_and_text() {
        let mut whole = Tally::new(1000);
        assert!(!whole.whole(b"<html>") && !whole.whole(br#"{"error":{"message":"m"}}"#));
        assert!(whole.whole(br#"{"choices":[{"index":0,"message":{"role":"assistant","content":"a b"}}]}"#));
        assert_eq!((whole.reported(), whole.count_output(&Words)), (None, 2));
        assert!(whole.whole(br#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#));
        assert_eq!(whole.reported(), Some(TokenUsage::text(3, 2)));
    }

    /// [trap 14]
    #[test]
    fn text_beyond_the_limit_is_estimated_and_not_kept() {
        let mut tally = Tally::new(8);
        for _ in 0..100 {
            tally.event(TEXT.as_bytes());
        }
        assert!(tally.is_partial());
        assert_eq!(tally.kept, 7);
        assert_eq!(tally.count_output(&Words), 2 + (99 * 7_u64).div_ceil(4));
    }
}
