//! What a provider's answer says about itself: its usage, its text (for counting when no usage comes), its end.

mod frame;

use std::collections::BTreeMap;

use money::TokenUsage;

use crate::prompt::{Count, Tokenizer};
use crate::sse::DONE;
use crate::usage::WireUsage;
use frame::{Frame, Piece, is_empty};

/// What is to be done with an event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Forward,
    /// It holds nothing but the usage: for the client only if it asked.
    Usage,
    /// The provider says that the stream is over.
    Done,
    /// The provider says that something went wrong: for the client only as [`crate::ProviderError`] has it.
    Error,
}

/// How many characters of base64 stand for a byte of text in an estimate: a token of text is four bytes, and one of sound 50 ms, which
/// are 3200 characters in the format of streams (24 kHz, 16 bits).
const SOUND_PER_BYTE: usize = 800;

/// Watches an answer; bounded in memory.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    usage: Option<TokenUsage>,
    usage_is_final: bool,
    done: bool,
    texts: BTreeMap<u32, String>,
    kept: usize,
    /// Bytes that came and are not kept: too many, or not understood.
    beyond: usize,
    text_limit: usize,
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
        let before = self.bytes();
        let frame = Frame::read(data);
        let has_usage = frame.as_ref().is_some_and(|frame| self.observe(frame, data.len()));
        if frame.is_none() {
            // What is no JSON is passed on: it is not for us to judge. But something was sent [trap 6].
            self.beyond += data.trim_ascii().len();
        }
        // A count that text follows was none of the whole answer.
        self.usage_is_final &= self.bytes() == before;
        let Some(frame) = frame else { return Verdict::Forward };
        if frame.is_error {
            Verdict::Error
        } else if has_usage && frame.choices.is_none_or(is_empty) {
            self.usage_is_final = true;
            Verdict::Usage
        } else {
            Verdict::Forward
        }
    }

    /// Watches a whole answer; false when it is none.
    pub fn whole(&mut self, body: &[u8]) -> bool {
        if let Some(frame) = Frame::read(body)
            && !frame.is_error
        {
            self.observe(&frame, body.len());
            self.done = true;
        }
        self.done
    }

    /// Takes text and usage; whether there was a usage that is not null. The last one wins, also when it is zero. What is not
    /// understood counts by its size: no output for a stream that was not empty is never right [trap 6].
    fn observe(&mut self, frame: &Frame<'_>, size: usize) -> bool {
        // Of an error only its words are passed on: what else it holds is delivered to nobody.
        if !frame.is_error {
            frame.pieces(|choice, piece| match piece {
                Piece::Text(text) => self.keep(choice, &text),
                Piece::Sound(characters) => self.beyond += characters.div_ceil(SOUND_PER_BYTE),
                Piece::Unread(bytes) => self.beyond += bytes,
            });
        }
        if !frame.is_known {
            self.beyond += size;
        }
        let usage = frame.usage.and_then(|raw| serde_json::from_str::<WireUsage>(raw.get()).ok());
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

    /// Whether anything was generated.
    #[must_use]
    pub const fn has_text(&self) -> bool {
        self.bytes() > 0
    }

    const fn bytes(&self) -> usize {
        self.kept + self.beyond
    }

    /// The provider's own count, if it is the final one: a count on the way to a broken end is not. No output for an answer
    /// with text is not believed either [trap 6].
    #[must_use]
    pub fn reported(&self) -> Option<TokenUsage> {
        let is_final = self.done || self.usage_is_final;
        self.usage.filter(|usage| is_final && (usage.total_output() > 0 || !self.has_text()))
    }

    /// Counts the answer's text; an estimate, when more came than was kept or understood.
    #[must_use]
    pub fn count_output(&self, tokenizer: &impl Tokenizer) -> Count {
        let kept: u64 = self.texts.values().map(|text| tokenizer.count(text)).sum();
        Count { tokens: kept + estimate(self.beyond), exact: self.beyond == 0 }
    }

    /// The answer's text without a tokenizer: four bytes a token, rounded up.
    #[must_use]
    pub const fn estimate_output(&self) -> u64 {
        estimate(self.bytes())
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

    fn count(tally: &Tally) -> (u64, bool) {
        let count = tally.count_output(&Words);
        (count.tokens, count.exact)
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
        assert_eq!((tally.reported(), count(&tally)), (None, (3, true)));
        assert!(!tally.is_done());
    }

    /// [trap 6] [trap 14]
    #[test]
    fn a_count_that_stands_alone_before_the_text_is_not_the_final_one() {
        let early = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}"#;
        for text in [TEXT, "one two"] {
            assert_eq!(tally(&[early, text]).0.reported(), None, "{text}");
            assert_eq!(tally(&[early, text, USAGE]).0.reported(), Some(TokenUsage::text(7, 2)), "{text}");
        }
        let finish = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        assert_eq!(tally(&[TEXT, USAGE, finish, r#"{"error":{"message":"m"}}"#]).0.reported(), Some(TokenUsage::text(7, 2)));
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
        for (said, words) in [
            (r#""refusal":"no no no""#, 3),
            (r#""reasoning_content":"hm""#, 1),
            (r#""reasoning":"hm hm","reasoning_content":"hm hm""#, 2),
            (r#""reasoning":"hm hm","reasoning_content":null"#, 2),
            (r#""content":[{"type":"text","text":"a b"},{"type":"thinking","text":" c"}]"#, 3),
            (r#""tool_calls":[{"index":0,"id":"x y","type":"function","function":{"name":"f","arguments":" { }"}}]"#, 1 + 2),
            (r#""tool_calls":[{"index":0,"type":"custom","custom":{"name":"g","input":" a b c"}}]"#, 1 + 3),
            (r#""function_call":{"name":"f","arguments":" { }"}"#, 1 + 2),
            (r#""audio":{"id":"a b","expires_at":1,"transcript":"a b"}"#, 2),
        ] {
            let event = format!(r#"{{"choices":[{{"index":1,"delta":{{"role":"assistant","content":null,{said}}}}}]}}"#);
            let (tally, _) = tally(&[TEXT, &event]);
            assert_eq!(count(&tally), (2 + words, true), "{said}");
        }
    }

    /// [trap 6]
    #[test]
    fn a_frame_with_delta_and_message_counts_once_and_its_usage_is_taken() {
        let both = r#"{"choices":[{"index":0,"delta":{"content":" three"},"message":{"content":"one two three"}}]}"#;
        assert_eq!(count(&tally(&[TEXT, both]).0), (3, true));
        let mut whole = Tally::new(1000);
        let answer = r#"{"choices":[{"delta":{},"message":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        assert!(whole.whole(answer.as_bytes()));
        assert_eq!(whole.reported(), Some(TokenUsage::text(3, 2)));
    }

    /// [trap 6]
    #[test]
    fn what_cannot_be_read_makes_the_count_an_estimate_that_includes_its_bytes() {
        for event in [
            "twelve bytes",
            r#"{"type":"content_block_delta"}"#,
            r#"{"choices":"twelve bytes"}"#,
            r#"{"choices":[{"index":"twelve bytes"}]}"#,
            r#"{"choices":[{"delta":{"thoughts":"twelve bytes"}}]}"#,
            r#"{"choices":[{"delta":{"content":[{"type":"image","source":"twelve bytes"}]}}]}"#,
            r#"{"choices":[{"delta":{"audio":{"data":"twelve bytes"}}}]}"#,
        ] {
            let (tokens, exact) = count(&tally(&[TEXT, event]).0);
            assert!(tokens > 2 && !exact, "{event}");
            let alone = Tally { usage: Some(TokenUsage::text(7, 0)), done: true, ..tally(&[event]).0 };
            assert_eq!(alone.reported(), None, "no output is not believed");
        }
        let deep = format!(r#"{{"choices":[{{"delta":{{"content":{}{}}}}}]}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(count(&tally(&[&deep]).0).0 > 40_000);
    }

    /// [trap 5] [trap 6]
    #[test]
    fn the_usage_of_a_frame_whose_choices_cannot_be_read_is_taken() {
        let odd = r#"{"choices":{"odd":1},"usage":{"prompt_tokens":7,"completion_tokens":5}}"#;
        assert_eq!(tally(&[odd, "[DONE]"]).0.reported(), Some(TokenUsage::text(7, 5)));
    }

    #[test]
    fn fields_that_say_nothing_leave_the_count_exact() {
        let event =
            r#"{"choices":[{"index":0,"delta":{"annotations":[],"x":null,"y":{},"z":1},"logprobs":null,"finish_reason":"stop"}],"id":"c"}"#;
        assert_eq!(count(&tally(&[TEXT, event]).0), (2, true));
    }

    #[test]
    fn an_error_in_the_stream_is_seen() {
        assert_eq!(tally(&[r#"{"error":{"message":"overloaded"}}"#]).1, [Verdict::Error]);
        let partial = r#"{"error":{"message":"m"},"choices":[{"index":0,"delta":{"content":"one"},"finish_reason":"error"}]}"#;
        assert!(!tally(&[partial]).0.has_text(), "what stands beside an error reaches nobody");
    }

    #[test]
    fn a_whole_answer_tells_usage_and_text() {
        let mut whole = Tally::new(1000);
        assert!(!whole.whole(b"<html>") && !whole.whole(br#"{"error":{"message":"m"}}"#));
        assert!(whole.whole(br#"{"choices":[{"index":0,"message":{"role":"assistant","content":"a b"}}]}"#));
        assert_eq!((whole.reported(), count(&whole)), (None, (2, true)));
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
        assert_eq!(tally.kept, 7);
        assert_eq!(count(&tally), (2 + (99 * 7_u64).div_ceil(4), false));
    }
}
