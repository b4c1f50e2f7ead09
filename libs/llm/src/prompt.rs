//! What stands in a prompt, and what it counts: by `OpenAI`'s published rule three tokens per message and one per name beside the
//! texts, and three that begin the answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::json::{self, Fields};

const PER_MESSAGE: u64 = 3;
const PER_NAME: u64 = 1;
const PRIMING: u64 = 3;

/// Counts tokens of a text as a model does.
pub trait Tokenizer {
    /// The number of tokens.
    fn count(&self, text: &str) -> u64;
}

/// A number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub tokens: u64,
    /// Whether all of it was text that could be counted; otherwise this is an estimate.
    pub exact: bool,
}

/// What stands in a prompt beside text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) messages: u64,
    pub(crate) images: u64,
    pub(crate) inline_image_bytes: u64,
    /// Something that may be larger than its own bytes: a file, an earlier answer's audio, or what is not known here.
    pub(crate) opaque: bool,
    /// What is or may be sound, of this request or of an earlier answer.
    pub(crate) audio: bool,
}

/// The fields of a message that tell what stands in it; the others are bytes.
#[derive(Deserialize)]
struct Message<'m> {
    #[serde(borrow, rename = "role")]
    _role: Cow<'m, str>,
    #[serde(borrow, default)]
    content: Option<&'m RawValue>,
    #[serde(default)]
    audio: Option<IgnoredAny>,
}

/// A part of a message's content.
#[derive(Deserialize)]
struct Part<'m> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'m, str>,
    #[serde(borrow, default)]
    image_url: Option<Url<'m>>,
    #[serde(default)]
    input_audio: Option<IgnoredAny>,
    #[serde(default)]
    audio_url: Option<IgnoredAny>,
    #[serde(default)]
    video_url: Option<IgnoredAny>,
    #[serde(default)]
    file: Option<IgnoredAny>,
}

/// Parts that are no sound, however large they are; any other that is not known may be.
const SILENT: [&str; 9] =
    ["document", "document_url", "file", "image_url", "redacted_thinking", "reference", "refusal", "text", "thinking"];

#[derive(Deserialize)]
struct Url<'m> {
    #[serde(borrow, default)]
    url: Cow<'m, str>,
}

/// Why messages are none: the parameter at fault and the rule.
pub(crate) type Wrong = (String, String);

impl Contents {
    /// Looks through the messages of a request.
    pub(crate) fn of(messages: &RawValue) -> Result<Self, Wrong> {
        let (mut contents, mut wrong) = (Self::default(), None);
        let add = |message: Message<'_>| {
            if !contents.add(&message) {
                wrong.get_or_insert(contents.messages);
            }
            contents.messages += 1;
        };
        json::for_each(messages, add).map_err(|error| ("messages".to_owned(), format!("must be a list of messages: {error}")))?;
        match wrong {
            _ if contents.messages == 0 => Err(("messages".to_owned(), "must have at least one message".to_owned())),
            Some(index) => Err((format!("messages[{index}].content"), "must be a string or a list of parts".to_owned())),
            None => Ok(contents),
        }
    }

    /// False when the content is neither a text nor a list of parts.
    fn add(&mut self, message: &Message<'_>) -> bool {
        if message.audio.is_some() {
            self.audio = true;
            self.opaque = true;
        }
        match message.content {
            Some(content) if content.get().starts_with('[') => json::for_each(content, |part| self.add_part(part)).is_ok(),
            Some(content) => content.get().starts_with('"'),
            None => true,
        }
    }

    fn add_part(&mut self, part: &RawValue) {
        let Ok(part) = serde_json::from_str::<Part<'_>>(part.get()) else {
            self.opaque = true;
            self.audio = true;
            return;
        };
        let is_known = matches!(&*part.kind, "text" | "refusal" | "image_url" | "input_audio");
        let is_media = part.audio_url.is_some() || part.video_url.is_some();
        self.opaque |= !is_known || is_media || part.file.is_some();
        self.audio |= !SILENT.contains(&&*part.kind) || is_media || part.input_audio.is_some();
        self.images += u64::from(part.kind == "image_url" || part.image_url.is_some());
        // Only an image's own bytes are no text, and only where they are taken for an image.
        if let Some(image) = part.image_url.filter(|image| part.kind == "image_url" && image.url.starts_with("data:image/")) {
            self.inline_image_bytes += image.url.len() as u64;
        }
    }
}

/// Counts a prompt, piece by piece.
#[derive(Debug)]
pub(crate) struct Counter<'t, T> {
    tokenizer: &'t T,
    image_tokens: u64,
    /// Whether what is not text counts nothing: how large it is to a model cannot be told from its bytes.
    only_text: bool,
    count: Count,
}

impl<'t, T: Tokenizer> Counter<'t, T> {
    pub(crate) const fn new(tokenizer: &'t T, image_tokens: u64) -> Self {
        Self { tokenizer, image_tokens, only_text: false, count: Count { tokens: PRIMING, exact: true } }
    }

    /// Counts what there is at least: no image, file or sound.
    pub(crate) const fn of_text(tokenizer: &'t T) -> Self {
        Self { only_text: true, ..Self::new(tokenizer, 0) }
    }

    pub(crate) const fn count(&self) -> Count {
        self.count
    }

    /// Adds the messages of a request. Sound and files count nothing here: their text does not tell.
    pub(crate) fn messages(&mut self, messages: &RawValue) {
        if json::for_each(messages, |message| self.message(message)).is_err() {
            self.other(messages);
        }
    }

    /// Adds what is no plain text of a message: an estimate, because how a model sees it is not published.
    pub(crate) fn other(&mut self, value: &RawValue) {
        self.count.exact = false;
        self.add(&json::text(value));
    }

    fn add(&mut self, text: &str) {
        self.count.tokens += self.tokenizer.count(text);
    }

    fn message(&mut self, message: &RawValue) {
        self.count.tokens += PER_MESSAGE;
        let Ok(fields) = serde_json::from_str::<Fields>(message.get()) else { return self.other(message) };
        for (name, value) in fields.iter().filter(|(_, value)| json::has_content(value)) {
            match name {
                "name" => {
                    self.count.tokens += PER_NAME;
                    self.text(value);
                }
                "content" if value.get().starts_with('[') => {
                    // A list it is, and its elements may be anything.
                    let _ = json::for_each(value, |part| self.part(part));
                }
                "role" | "content" => self.text(value),
                "tool_calls" => self.tool_calls(value),
                // An id, which no model sees; but it comes with a tool's answer, whose frame is not published.
                "tool_call_id" => self.count.exact = false,
                "audio" => self.unless_only_text(value),
                _ => self.other(value),
            }
        }
    }

    fn text(&mut self, value: &RawValue) {
        match json::string(value) {
            Some(text) => self.add(&text),
            None => self.other(value),
        }
    }

    fn part(&mut self, part: &RawValue) {
        let Ok(fields) = serde_json::from_str::<Fields>(part.get()) else { return self.unless_only_text(part) };
        let kind: Option<String> = fields.get("type").ok().flatten();
        let own = match kind.as_deref() {
            Some("text") => "text",
            Some("image_url") => {
                self.count.exact = false;
                self.count.tokens += self.image_tokens;
                "image_url"
            }
            _ => "",
        };
        for (name, value) in fields.iter().filter(|(name, value)| *name != "type" && json::has_content(value)) {
            match name {
                "text" if own == "text" => self.text(value),
                "refusal" if kind.as_deref() == Some("refusal") => self.other(value),
                _ if name == own => {}
                _ => self.unless_only_text(value),
            }
        }
    }

    fn unless_only_text(&mut self, value: &RawValue) {
        self.count.exact = false;
        if !self.only_text {
            self.other(value);
        }
    }

    fn tool_calls(&mut self, calls: &RawValue) {
        self.count.exact = false;
        let called = |call: ToolCall<'_>| {
            for called in [call.function, call.custom].into_iter().flatten() {
                for text in [called.name, called.arguments, called.input] {
                    self.add(&text);
                }
            }
        };
        if json::for_each(calls, called).is_err() {
            self.other(calls);
        }
    }
}

#[derive(Deserialize)]
struct ToolCall<'m> {
    #[serde(borrow, default)]
    function: Option<Called<'m>>,
    #[serde(borrow, default)]
    custom: Option<Called<'m>>,
}

#[derive(Deserialize)]
struct Called<'m> {
    #[serde(borrow, default)]
    name: Cow<'m, str>,
    #[serde(borrow, default)]
    arguments: Cow<'m, str>,
    #[serde(borrow, default)]
    input: Cow<'m, str>,
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

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("what the test gives is valid")
    }

    fn count(json: &str) -> (u64, bool) {
        let mut counter = Counter::new(&Words, 100);
        counter.messages(&raw(json));
        (counter.count().tokens, counter.count().exact)
    }

    #[test]
    fn a_prompt_counts_three_per_message_one_per_name_and_three_to_begin() {
        assert_eq!(count(r#"[{"role":"user","content":"one two"}]"#), (3 + 1 + 2 + 3, true));
        assert_eq!(
            count(r#"[{"role":"system","name":"ann","content":"one"},{"role":"user","content":"é\n two"}]"#),
            ((3 + 1 + 1 + 1 + 1) + (3 + 1 + 2) + 3, true)
        );
    }

    #[test]
    fn texts_in_parts_and_fields_without_content_leave_the_count_exact() {
        let json = r#"[{"role":"assistant","content":[{"type":"text","text":"a b"}],"refusal":null,"tool_calls":[],"annotations":[]}]"#;
        assert_eq!(count(json), (3 + 1 + 2 + 3, true));
    }

    /// [trap 6]
    #[test]
    fn what_is_no_plain_text_is_counted_and_makes_the_count_an_estimate() {
        let parts = r#"[{"role":"user","content":[{"type":"text","text":"a b"},{"type":"image_url","image_url":{"url":"data:x"}}]}]"#;
        assert_eq!(count(parts), (3 + 1 + 2 + 100 + 3, false));
        let calls = r#"[{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"x y"}},
            {"id":"2","type":"custom","custom":{"name":"g","input":"z"}}]}]"#;
        assert_eq!(count(calls), (3 + 1 + (1 + 2) + (1 + 1) + 3, false));
        assert_eq!(count(r#"[{"role":"tool","tool_call_id":"1","content":"a"}]"#), (3 + 1 + 1 + 3, false));
        assert_eq!(count(r#"[{"role":"assistant","content":"a","reasoning_content":"b c"}]"#), (3 + 1 + 1 + 2 + 3, false));
        assert_eq!(count(r#"[{"role":"user","content":[{"type":"refusal","refusal":"a b"},7]}]"#), (3 + 1 + 2 + 1 + 3, false));
    }

    /// [trap 6]
    #[test]
    fn what_there_is_at_least_is_the_text_and_no_image_file_or_sound() {
        let parts = r#"[{"role":"user","content":[{"type":"text","text":"a b","file":{"file_data":"x y z"}},{"type":"refusal","refusal":"c"},
            {"type":"image_url","image_url":{"url":"data:x"}},{"type":"file","file":{"file_data":"d e f"}},{"type":"video_url","video_url":"g h"},7]},
            {"role":"assistant","audio":{"data":"i j"}}]"#;
        let mut counter = Counter::of_text(&Words);
        counter.messages(&raw(parts));
        assert_eq!(counter.count(), Count { tokens: (3 + 1 + 2 + 1) + (3 + 1) + 3, exact: false });
    }

    /// [trap 3]
    #[test]
    fn sound_files_and_unknown_parts_are_seen() {
        let contents = |parts: &str| Contents::of(&raw(&format!(r#"[{{"role":"user","content":{parts}}}]"#))).expect("messages");
        let text = contents(r#"[{"type":"text","text":"a"},{"type":"refusal","refusal":"b"}]"#);
        assert_eq!(text, Contents { messages: 1, ..Contents::default() });
        let sound = contents(r#"[{"type":"input_audio","input_audio":{"data":"aaaa","format":"wav"}}]"#);
        assert_eq!(sound, Contents { messages: 1, audio: true, ..Contents::default() });
        for opaque in [r#"{"type":"file","file":{}}"#, r#"{"type":"video_url"}"#, r#"{"text":"a"}"#, "7", r#"{"type":"text","file":{}}"#] {
            assert!(contents(&format!("[{opaque}]")).opaque, "{opaque}");
        }
        for (part, may_be_sound) in [
            (r#"{"type":"video_url","video_url":{"url":"https://x/y.mp4"}}"#, true),
            (r#"{"type":"audio_url"}"#, true),
            (r#"{"type":"text","text":"a","audio_url":{}}"#, true),
            (r#"{"video_url":{}}"#, true),
            (r#"{"type":"image_url","image_url":"https://x/y.mp4"}"#, true),
            (r#"{"type":"file","file":{"file_id":"f"}}"#, false),
            (r#"{"type":"text","file":{}}"#, false),
            (r#"{"type":"thinking","thinking":[]}"#, false),
        ] {
            let contents = contents(&format!("[{part}]"));
            assert!(contents.opaque && contents.audio == may_be_sound, "{part}");
        }
        let earlier = Contents::of(&raw(r#"[{"role":"assistant","audio":{"id":"a"}}]"#)).expect("messages");
        assert!(earlier.audio && earlier.opaque);
    }

    /// [trap 3]
    #[test]
    fn only_the_bytes_of_an_inline_image_are_no_text() {
        let contents = |part: &str| Contents::of(&raw(&format!(r#"[{{"role":"user","content":[{part}]}}]"#))).expect("messages");
        let image = contents(r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,aaaa"}}"#);
        assert_eq!((image.images, image.inline_image_bytes), (1, 26));
        for text in [
            r#"{"type":"image_url","image_url":{"url":"data:text/plain,aaaa"}}"#,
            r#"{"type":"text","text":"","image_url":{"url":"data:image/png,a"}}"#,
        ] {
            assert_eq!(contents(text).inline_image_bytes, 0, "{text}");
        }
    }
}
