//! A chat completion as a client asks for it: the few fields that the gateway uses are read, all are kept as they came.

mod limits;
mod rules;
mod unpriced;
mod upstream;

use money::Audio;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::json::Fields;
use crate::prompt::Contents;

pub use limits::Allowances;
pub use rules::InvalidRequest;
pub use upstream::LimitField;

/// A parsed request.
#[derive(Debug)]
pub struct ChatRequest {
    fields: Fields,
    model: String,
    stream: bool,
    choices: u64,
    max_tokens: Option<u64>,
    stream_options: Map<String, Value>,
    contents: Contents,
    audio: Audio,
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// [`InvalidRequest`], naming the parameter.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidRequest> {
        let fields: Fields =
            serde_json::from_slice(body).map_err(|error| InvalidRequest::new("body", format!("must be a JSON object: {error}")))?;
        rules::check_names(&fields)?;
        let model = rules::model(&fields)?;
        let choices = rules::choices(&fields)?;
        let max_tokens = rules::max_tokens(&fields)?;
        unpriced::check(&fields)?;
        let messages = fields.raw("messages").ok_or_else(|| InvalidRequest::new("messages", "is required"))?;
        let contents = Contents::of(messages).map_err(|(param, rule)| InvalidRequest::new(&param, rule))?;
        Ok(Self {
            model,
            stream: get(&fields, "stream", "true or false")?.unwrap_or(false),
            choices,
            max_tokens,
            stream_options: get(&fields, "stream_options", "an object")?.unwrap_or_default(),
            audio: Audio { input: contents.audio, output: unpriced::asks_for_audio(&fields)? },
            contents,
            fields,
        })
    }

    /// The model as the client names it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.stream
    }

    /// The longest answer that the client asked for, if it did.
    #[must_use]
    pub const fn max_tokens(&self) -> Option<u64> {
        self.max_tokens
    }

    /// Whether prompt and answer may have audio tokens.
    #[must_use]
    pub const fn audio(&self) -> Audio {
        self.audio
    }

    /// Images in the prompt.
    #[must_use]
    pub const fn images(&self) -> u64 {
        self.contents.images
    }

    /// Whether the client wants the frame with the usage.
    #[must_use]
    pub fn wants_usage(&self) -> bool {
        self.stream_options.get("include_usage").and_then(Value::as_bool).unwrap_or(false)
    }
}

/// A field's value; null is absent.
fn get<T: DeserializeOwned>(fields: &Fields, name: &str, what: &str) -> Result<Option<T>, InvalidRequest> {
    fields.get(name).map_err(|_| InvalidRequest::new(name, format!("must be {what}")))
}

/// What a request is refused for that has this field too.
#[cfg(test)]
fn refused(field: &str) -> Option<String> {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a"}}],{field}}}"#);
    ChatRequest::parse(body.as_bytes()).err().map(|error| error.param)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_breaks_a_rule_names_the_parameter() {
        let cases = [
            ("[]", "body"),
            ("{", "body"),
            (r#"{"model":"a","model":"b","messages":[{"role":"user"}]}"#, "body"),
            (r#"{"messages":[{"role":"user"}]}"#, "model"),
            (r#"{"model":7,"messages":[{"role":"user"}]}"#, "model"),
            (r#"{"model":"","messages":[{"role":"user"}]}"#, "model"),
            (r#"{"model":"m"}"#, "messages"),
            (r#"{"model":"m","messages":[]}"#, "messages"),
            (r#"{"model":"m","messages":[{}]}"#, "messages"),
            (r#"{"model":"m","messages":[{"role":"user"},{"role":"user","content":7}]}"#, "messages[1].content"),
            (r#"{"model":"m","messages":[{"role":"user"}],"n":0}"#, "n"),
            (r#"{"model":"m","messages":[{"role":"user"}],"n":129}"#, "n"),
            (r#"{"model":"m","messages":[{"role":"user"}],"max_tokens":-1}"#, "max_tokens"),
            (r#"{"model":"m","messages":[{"role":"user"}],"max_completion_tokens":0}"#, "max_completion_tokens"),
            (r#"{"model":"m","messages":[{"role":"user"}],"stream":"yes"}"#, "stream"),
            (r#"{"model":"m","messages":[{"role":"user"}],"stream_options":[]}"#, "stream_options"),
            (r#"{"model":"m","messages":[{"role":"user"}],"modalities":"audio"}"#, "modalities"),
        ];
        for (body, param) in cases {
            assert_eq!(ChatRequest::parse(body.as_bytes()).expect_err("a refusal").param, param, "{body}");
        }
    }

    #[test]
    fn audio_is_seen_in_the_modalities_in_the_prompt_and_in_references_to_earlier_answers() {
        let audio = |message: &str, extra: &str| {
            let body = format!(r#"{{"model":"m","messages":[{message}]{extra}}}"#);
            ChatRequest::parse(body.as_bytes()).expect("a request").audio()
        };
        let text = r#"{"role":"user","content":"a"}"#;
        let sound = r#"{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}"#;
        let (heard, spoken) = (Audio { input: true, output: false }, Audio { input: false, output: true });
        assert_eq!(audio(text, r#","modalities":["text"],"audio":null"#), Audio::NONE);
        assert_eq!(audio(text, r#","modalities":["text","audio"]"#), spoken);
        assert_eq!(audio(sound, ""), heard);
        assert_eq!(audio(r#"{"role":"assistant","audio":{"id":"a"}}"#, ""), heard);
        assert_eq!(audio(sound, r#","modalities":["audio"]"#), Audio::BOTH);
    }
}
