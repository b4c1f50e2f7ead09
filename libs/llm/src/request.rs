//! A chat completion as a client asks for it: the few fields that the gateway uses are read, all are kept as they came.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::prompt::{self, Attachments, Message, Tokenizer};

const MAX_CHOICES: u64 = 128;
const MAX_MODEL_BYTES: usize = 200;
/// Tokens that a provider may add around a prompt and around each message.
const OVERHEAD: u64 = 64;
const OVERHEAD_PER_MESSAGE: u64 = 8;
/// Fields whose text a provider puts before the model.
const PROMPT_FIELDS: [&str; 6] = ["messages", "tools", "functions", "response_format", "tool_choice", "prediction"];

/// A request that breaks a rule: the parameter and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {message}")]
pub struct InvalidRequest {
    /// The parameter at fault; none when the body is no JSON object at all.
    pub param: String,
    /// What it must be.
    pub message: String,
}

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

/// A parsed request.
#[derive(Debug)]
pub struct ChatRequest {
    fields: Fields,
    model: String,
    stream: bool,
    choices: u64,
    max_tokens: Option<u64>,
    stream_options: Map<String, Value>,
    messages: u64,
    attachments: Attachments,
}

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// [`InvalidRequest`], naming the parameter.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidRequest> {
        let fields: Fields = serde_json::from_slice(body).map_err(|error| invalid("body", format!("must be a JSON object: {error}")))?;
        let model: String = fields.get("model", "a string")?.ok_or_else(|| invalid("model", "is required"))?;
        if model.is_empty() || model.len() > MAX_MODEL_BYTES {
            return Err(invalid("model", format!("must have 1 to {MAX_MODEL_BYTES} bytes")));
        }
        let choices = fields.get("n", "a whole number")?.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&choices) {
            return Err(invalid("n", format!("must be from 1 to {MAX_CHOICES}")));
        }
        let newer = fields.get::<u64>("max_completion_tokens", "a positive whole number")?;
        let older = fields.get::<u64>("max_tokens", "a positive whole number")?;
        for (name, value) in [("max_completion_tokens", newer), ("max_tokens", older)] {
            if value == Some(0) {
                return Err(invalid(name, "must be a positive whole number"));
            }
        }
        let (messages, attachments) = fields.messages()?;
        Ok(Self {
            model,
            stream: fields.get("stream", "true or false")?.unwrap_or(false),
            choices,
            // Where both are given, which one a provider heeds is its affair: reserve for the larger.
            max_tokens: newer.max(older),
            stream_options: fields.get("stream_options", "an object")?.unwrap_or_default(),
            messages,
            attachments,
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

    /// Whether the client wants the frame with the usage.
    #[must_use]
    pub fn wants_usage(&self) -> bool {
        self.stream_options.get("include_usage").and_then(Value::as_bool).unwrap_or(false)
    }

    /// The prompt can have no more tokens than this: a token is at least one byte of text.
    #[must_use]
    pub fn max_input_tokens(&self, allowances: &Allowances) -> u64 {
        if self.attachments.files > 0 {
            return allowances.context_window;
        }
        let text: u64 = PROMPT_FIELDS.iter().filter_map(|name| self.fields.raw(name)).map(|raw| raw.get().len() as u64).sum();
        text.saturating_sub(self.attachments.inline_image_bytes)
            .saturating_add(self.attachments.images.saturating_mul(allowances.image_tokens))
            .saturating_add(self.messages.saturating_mul(OVERHEAD_PER_MESSAGE) + OVERHEAD)
            .min(allowances.context_window)
    }

    /// All answers together can have no more tokens than this.
    #[must_use]
    pub fn max_output_tokens(&self, allowances: &Allowances) -> u64 {
        let each = self.max_tokens.unwrap_or(u64::MAX).min(allowances.max_output_tokens);
        each.saturating_mul(self.choices)
    }

    /// Counts the prompt by the published rule.
    #[must_use]
    pub fn count_input(&self, tokenizer: &impl Tokenizer) -> u64 {
        self.fields.raw("messages").map_or(0, |messages| prompt::count(messages, tokenizer))
    }

    /// The prompt's size without a tokenizer: four bytes a token, rounded up.
    #[must_use]
    pub fn estimate_input(&self) -> u64 {
        let text = self.fields.raw("messages").map_or(0, |raw| raw.get().len() as u64);
        text.saturating_sub(self.attachments.inline_image_bytes).div_ceil(4)
    }

    /// The body for the provider: the same fields in the same order, with the provider's name of the model, and with the usage
    /// asked for in a stream whether the client did or not [trap 5].
    #[must_use]
    pub fn to_provider(&self, model: &str) -> Vec<u8> {
        let model = Value::from(model).to_string();
        let options = self.stream.then(|| {
            let mut options = self.stream_options.clone();
            options.insert("include_usage".to_owned(), true.into());
            Value::Object(options).to_string()
        });
        let mut body = Vec::with_capacity(self.fields.0.iter().map(|(name, raw)| name.len() + raw.get().len() + 4).sum::<usize>() + 64);
        body.push(b'{');
        for (name, raw) in &self.fields.0 {
            let value = match (name.as_str(), &options) {
                ("model", _) => &model,
                ("stream_options", Some(options)) => options,
                _ => raw.get(),
            };
            push_field(&mut body, name, value);
        }
        if let (Some(options), None) = (&options, self.fields.raw("stream_options")) {
            push_field(&mut body, "stream_options", options);
        }
        body.push(b'}');
        body
    }
}

fn push_field(body: &mut Vec<u8>, name: &str, value: &str) {
    if body.len() > 1 {
        body.push(b',');
    }
    body.extend_from_slice(Value::from(name).to_string().as_bytes());
    body.push(b':');
    body.extend_from_slice(value.as_bytes());
}

fn invalid(param: &str, message: impl Into<String>) -> InvalidRequest {
    InvalidRequest { param: param.to_owned(), message: message.into() }
}

/// The fields of an object in their order, their values untouched.
#[derive(Debug)]
struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    fn raw(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, raw)| &**raw)
    }

    /// A field's value; null is absent.
    fn get<T: DeserializeOwned>(&self, name: &str, what: &str) -> Result<Option<T>, InvalidRequest> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|_| invalid(name, format!("must be {what}")))
    }

    /// The number of messages, and what they hold beside text.
    fn messages(&self) -> Result<(u64, Attachments), InvalidRequest> {
        let raw = self.raw("messages").ok_or_else(|| invalid("messages", "is required"))?;
        let messages: Vec<Message<'_>> =
            serde_json::from_str(raw.get()).map_err(|error| invalid("messages", format!("must be a list of messages: {error}")))?;
        if messages.is_empty() {
            return Err(invalid("messages", "must have at least one message"));
        }
        let mut attachments = Attachments::default();
        for (index, message) in messages.iter().enumerate() {
            let wrong = || invalid(&format!("messages[{index}].content"), "must be a string or a list of parts");
            if !message.has_content_of_a_known_kind() {
                return Err(wrong());
            }
            message.parts().map_err(|_| wrong())?.iter().for_each(|part| attachments.add(part));
        }
        Ok((messages.len() as u64, attachments))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // Two readers may choose differently between two values: what is checked must be what is sent.
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("a field is given twice"));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCES: Allowances = Allowances { context_window: 100_000, max_output_tokens: 4_000, image_tokens: 1_000 };

    fn parse(body: &str) -> Result<ChatRequest, InvalidRequest> {
        ChatRequest::parse(body.as_bytes())
    }

    fn provider(body: &str) -> String {
        String::from_utf8(parse(body).expect("what the test gives is valid").to_provider("real")).expect("what the test gives is valid")
    }

    #[test]
    fn unknown_fields_numbers_and_order_reach_the_provider_as_they_came() {
        let sent = provider(
            r#"{"zeta":1e400,"messages":[{"role":"user","content":"\u0041","x":[1.0,2]}],"model":"alias","é\n":{"b":1,"a":18446744073709551616}}"#,
        );
        assert_eq!(
            sent,
            r#"{"zeta":1e400,"messages":[{"role":"user","content":"\u0041","x":[1.0,2]}],"model":"real","é\n":{"b":1,"a":18446744073709551616}}"#
        );
    }

    /// [trap 5]
    #[test]
    fn usage_is_asked_for_in_every_stream_and_the_clients_own_options_are_kept() {
        let message = r#""messages":[{"role":"user","content":"a"}]"#;
        for (given, expected) in [
            ("", r#","stream_options":{"include_usage":true}"#),
            (r#","stream_options":null"#, r#","stream_options":{"include_usage":true}"#),
            (r#","stream_options":{"include_usage":false,"x":1}"#, r#","stream_options":{"include_usage":true,"x":1}"#),
        ] {
            let body = format!(r#"{{"model":"m",{message},"stream":true{given}}}"#);
            assert_eq!(provider(&body), format!(r#"{{"model":"real",{message},"stream":true{expected}}}"#));
            assert!(!parse(&body).expect("what the test gives is valid").wants_usage());
        }
        let whole = format!(r#"{{"model":"m",{message}}}"#);
        assert_eq!(provider(&whole), whole.replace(r#""m""#, r#""real""#));
    }

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
            (r#"{"model":"m","messages":[{"role":"user","content":7}]}"#, "messages[0].content"),
            (r#"{"model":"m","messages":[{"role":"user"}],"n":0}"#, "n"),
            (r#"{"model":"m","messages":[{"role":"user"}],"n":129}"#, "n"),
            (r#"{"model":"m","messages":[{"role":"user"}],"max_tokens":-1}"#, "max_tokens"),
            (r#"{"model":"m","messages":[{"role":"user"}],"max_completion_tokens":0}"#, "max_completion_tokens"),
            (r#"{"model":"m","messages":[{"role":"user"}],"stream":"yes"}"#, "stream"),
            (r#"{"model":"m","messages":[{"role":"user"}],"stream_options":[]}"#, "stream_options"),
        ];
        for (body, param) in cases {
            assert_eq!(parse(body).expect_err("a refusal").param, param, "{body}");
        }
    }

    /// [trap 3]
    #[test]
    fn the_bound_of_the_prompt_covers_every_byte_of_text_and_the_context_window_covers_all() {
        let bound = |content: &str| {
            parse(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]}}"#))
                .expect("what the test gives is valid")
                .max_input_tokens(&ALLOWANCES)
        };
        let text = "x".repeat(5_000);
        assert!(bound(&format!("\"{text}\"")) >= 5_000);
        assert!(bound(&format!("\"{text}\"")) < 5_200);
        assert_eq!(bound(&format!("\"{}\"", "x".repeat(200_000))), 100_000);
        let image = format!(r#"[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{text}"}}}}]"#);
        assert!((1_000..1_300).contains(&bound(&image)), "{}", bound(&image));
        assert_eq!(bound(r#"[{"type":"file","file":{"file_id":"f"}}]"#), 100_000);
    }

    /// [trap 3]
    #[test]
    fn the_bound_of_the_answer_is_the_smaller_of_model_and_wish_times_the_choices() {
        let bound = |extra: &str| {
            parse(&format!(r#"{{"model":"m","messages":[{{"role":"user"}}]{extra}}}"#))
                .expect("what the test gives is valid")
                .max_output_tokens(&ALLOWANCES)
        };
        assert_eq!(bound(""), 4_000);
        assert_eq!(bound(r#","max_tokens":10,"n":3"#), 30);
        assert_eq!(bound(r#","max_completion_tokens":99999"#), 4_000);
        assert_eq!(bound(r#","max_tokens":10,"max_completion_tokens":20"#), 20);
    }
}
