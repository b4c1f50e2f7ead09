//! What a prompt counts, by `OpenAI`'s published rule: three tokens per message and one per name beside the texts, and three
//! that begin the answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

const PER_MESSAGE: u64 = 3;
const PER_NAME: u64 = 1;
const PRIMING: u64 = 3;

/// Counts tokens of a text as a model does.
pub trait Tokenizer {
    /// The number of tokens.
    fn count(&self, text: &str) -> u64;
}

/// The parts of a message that count; everything else is ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct Message<'m> {
    #[serde(borrow)]
    role: Cow<'m, str>,
    #[serde(borrow, default)]
    content: Option<&'m RawValue>,
    #[serde(borrow, default)]
    name: Option<Cow<'m, str>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'m>>>,
}

#[derive(Debug, Deserialize)]
struct ToolCall<'m> {
    #[serde(borrow, default)]
    function: Option<Function<'m>>,
}

#[derive(Debug, Deserialize)]
struct Function<'m> {
    #[serde(borrow, default)]
    name: Cow<'m, str>,
    #[serde(borrow, default)]
    arguments: Cow<'m, str>,
}

/// A part of a message's content.
#[derive(Debug, Deserialize)]
pub(crate) struct Part<'m> {
    #[serde(borrow, default)]
    text: Option<Cow<'m, str>>,
    #[serde(borrow, default)]
    image_url: Option<Url<'m>>,
    #[serde(default)]
    file: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Url<'m> {
    #[serde(borrow, default)]
    url: Cow<'m, str>,
}

/// What stands in a prompt beside text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attachments {
    pub(crate) images: u64,
    pub(crate) inline_image_bytes: u64,
    pub(crate) files: u64,
}

impl<'m> Message<'m> {
    fn text(&self) -> Option<Cow<'m, str>> {
        serde_json::from_str(self.content?.get()).ok()
    }

    /// The parts, when the content is a list.
    pub(crate) fn parts(&self) -> Result<Vec<Part<'m>>, serde_json::Error> {
        match self.content {
            Some(content) if content.get().starts_with('[') => serde_json::from_str(content.get()),
            _ => Ok(Vec::new()),
        }
    }

    pub(crate) fn has_content_of_a_known_kind(&self) -> bool {
        self.content.is_none_or(|content| matches!(content.get().as_bytes().first(), Some(b'"' | b'[' | b'n')))
    }
}

impl Attachments {
    pub(crate) fn add(&mut self, part: &Part<'_>) {
        if let Some(image) = &part.image_url {
            self.images += 1;
            if image.url.starts_with("data:") {
                self.inline_image_bytes += image.url.len() as u64;
            }
        }
        self.files += u64::from(part.file.is_some());
    }
}

/// Counts a prompt: the JSON of `messages`. Images and audio are not counted; what is no list of messages counts nothing.
#[must_use]
pub fn count(messages: &RawValue, tokenizer: &impl Tokenizer) -> u64 {
    let messages: Vec<Message<'_>> = serde_json::from_str(messages.get()).unwrap_or_default();
    messages.iter().map(|message| count_message(message, tokenizer)).sum::<u64>() + PRIMING
}

fn count_message(message: &Message<'_>, tokenizer: &impl Tokenizer) -> u64 {
    let text = message.text().map_or(0, |text| tokenizer.count(&text));
    let parts = message.parts().unwrap_or_default();
    let parts: u64 = parts.iter().filter_map(|part| part.text.as_ref()).map(|text| tokenizer.count(text)).sum();
    let name = message.name.as_ref().map_or(0, |name| PER_NAME + tokenizer.count(name));
    let functions = message.tool_calls.iter().flatten().filter_map(|call| call.function.as_ref());
    let calls: u64 = functions.map(|function| tokenizer.count(&function.name) + tokenizer.count(&function.arguments)).sum();
    PER_MESSAGE + tokenizer.count(&message.role) + text + parts + name + calls
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

    fn count(json: &str) -> u64 {
        super::count(&RawValue::from_string(json.to_owned()).expect("what the test gives is valid"), &Words)
    }

    #[test]
    fn a_prompt_counts_three_per_message_one_per_name_and_three_to_begin() {
        assert_eq!(count(r#"[{"role":"user","content":"one two"}]"#), 3 + 1 + 2 + 3);
        assert_eq!(
            count(r#"[{"role":"system","name":"ann","content":"one"},{"role":"user","content":"é\n two"}]"#),
            (3 + 1 + 1 + 1 + 1) + (3 + 1 + 2) + 3
        );
    }

    #[test]
    fn texts_of_parts_and_tool_calls_count_and_images_do_not() {
        let parts = r#"[{"role":"user","content":[{"type":"text","text":"a b"},{"type":"image_url","image_url":{"url":"data:x"}}]}]"#;
        assert_eq!(count(parts), 3 + 1 + 2 + 3);
        let calls = r#"[{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"x y"}}]}]"#;
        assert_eq!(count(calls), 3 + 1 + 1 + 2 + 3);
    }
}
