//! What an event, or a whole answer, says: its usage, and all that was generated, wherever a provider puts it.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::json;

/// Deeper than any answer is: what a provider nests must not use up our stack.
const MAX_DEPTH: u32 = 8;

/// An event of a stream, or a whole answer.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) choices: Option<&'a RawValue>,
    pub(super) usage: Option<&'a RawValue>,
    pub(super) is_error: bool,
    /// Whether it says anything that an event of a completion says.
    pub(super) is_known: bool,
}

/// Something that was generated.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// Sound, as so many characters of base64.
    Sound(usize),
    /// So many bytes that are not understood.
    Unread(usize),
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum FrameKey {
    Choices,
    Usage,
    Error,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
}

/// Where generated text stands in a `delta` or a `message`, at any depth.
#[derive(Deserialize, PartialEq)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Arguments,
    Audio,
    Content,
    Custom,
    Data,
    ExpiresAt,
    Function,
    FunctionCall,
    Id,
    Index,
    Input,
    Name,
    Reasoning,
    ReasoningContent,
    Refusal,
    Role,
    Text,
    ToolCalls,
    Transcript,
    Type,
    #[serde(other)]
    Other,
}

impl<'a> Frame<'a> {
    /// Reads a frame; none, when it is no JSON object.
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        let entries = json::entries(std::str::from_utf8(data).ok()?.trim())?;
        let mut frame = Self { choices: None, usage: None, is_error: false, is_known: false };
        for (key, value) in entries {
            frame.is_known |= !matches!(key, FrameKey::Other);
            let value = Some(value).filter(|value| !json::is_null(value));
            match key {
                FrameKey::Choices => frame.choices = value,
                FrameKey::Usage => frame.usage = value,
                FrameKey::Error => frame.is_error = value.is_some(),
                FrameKey::Other => {}
            }
        }
        Some(frame)
    }

    /// Passes on what was generated, with the number of its choice.
    pub(super) fn pieces(&self, mut take: impl FnMut(u32, Piece<'a>)) {
        let Some(choices) = self.choices else { return };
        let each = |raw: &'a RawValue| match serde_json::from_str::<Choice<'_>>(raw.get()) {
            Ok(choice) => {
                // Some providers repeat the whole answer as the `message` of a stream's event: the news is in `delta`.
                if let Some(said) = choice.delta.or(choice.message) {
                    gather(said, 0, &mut |piece| take(choice.index.unwrap_or(0), piece));
                }
            }
            Err(_) => take(0, Piece::Unread(raw.get().len())),
        };
        if json::for_each(choices, each).is_err() {
            take(0, Piece::Unread(choices.get().len()));
        }
    }
}

/// Passes on all text in a value, and how much of it is not understood.
fn gather<'a>(value: &'a RawValue, depth: u32, take: &mut impl FnMut(Piece<'a>)) {
    let unread = Piece::Unread(value.get().len());
    match value.get().as_bytes().first() {
        _ if !json::has_content(value) => {}
        Some(b'"') => take(json::string(value).map_or(unread, Piece::Text)),
        _ if depth == MAX_DEPTH => take(unread),
        Some(b'[') => {
            // A list it is, and its elements may be anything.
            let _ = json::for_each(value, |element| gather(element, depth + 1, take));
        }
        _ => match json::entries(value.get()) {
            Some(entries) => fields(&entries, depth, take),
            None => take(unread),
        },
    }
}

fn fields<'a>(entries: &[(Key, &'a RawValue)], depth: u32, take: &mut impl FnMut(Piece<'a>)) {
    // The same text by its older and its newer name.
    let is_twice = entries.iter().any(|(key, value)| *key == Key::ReasoningContent && json::has_content(value));
    for (key, value) in entries {
        match key {
            Key::Reasoning if is_twice => {}
            Key::Data => take(Piece::Sound(value.get().len())),
            Key::Other if json::has_content(value) => take(Piece::Unread(value.get().len())),
            Key::ExpiresAt | Key::Id | Key::Index | Key::Role | Key::Type | Key::Other => {}
            _ => gather(value, depth + 1, take),
        }
    }
}

/// Whether this is a list with nothing in it.
pub(super) fn is_empty(list: &RawValue) -> bool {
    let mut elements = 0;
    json::for_each(list, |_: IgnoredAny| elements += 1).is_ok() && elements == 0
}
