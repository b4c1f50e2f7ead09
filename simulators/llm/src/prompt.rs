//! What a prompt counts, by `OpenAI`'s published rule: each message has three tokens beside its texts and a name one more, and
//! three tokens begin the answer. Images and tools are not counted.

use serde::Deserialize;

const PER_MESSAGE: u64 = 3;
const PER_NAME: u64 = 1;
const PRIMING: u64 = 3;

/// A message; what does not count is not read.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    role: String,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(default)]
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    #[serde(default)]
    function: Option<Function>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Function {
    name: String,
    arguments: String,
}

/// Counts a prompt.
pub(crate) fn count(messages: &[Message]) -> u64 {
    messages.iter().map(count_message).sum::<u64>() + PRIMING
}

fn count_message(message: &Message) -> u64 {
    let content = match &message.content {
        None => 0,
        Some(Content::Text(text)) => count_text(text),
        Some(Content::Parts(parts)) => parts.iter().filter_map(|part| part.text.as_deref()).map(count_text).sum(),
    };
    let name = message.name.as_deref().map_or(0, |name| PER_NAME + count_text(name));
    let functions = message.tool_calls.iter().flatten().filter_map(|call| call.function.as_ref());
    let calls: u64 = functions.map(|function| count_text(&function.name) + count_text(&function.arguments)).sum();
    PER_MESSAGE + count_text(&message.role) + content + name + calls
}

/// Counts a text in `o200k_base`.
pub(crate) fn count_text(text: &str) -> u64 {
    tokenizer::count(text)
}

#[cfg(test)]
mod tests {
    fn count(json: &str) -> u64 {
        super::count(&serde_json::from_str::<Vec<super::Message>>(json).unwrap())
    }

    #[test]
    fn a_prompt_counts_by_the_published_rule() {
        assert_eq!(count(r#"[{"role":"user","content":"hello world"}]"#), 3 + 1 + 2 + 3);
        let named = r#"[{"role":"system","name":"ann","content":"hello"},{"role":"user","content":"hello world"}]"#;
        assert_eq!(count(named), (3 + 1 + (1 + 1) + 1) + (3 + 1 + 2) + 3);
    }

    #[test]
    fn texts_of_parts_and_tool_calls_count_and_images_do_not() {
        let parts =
            r#"[{"role":"user","content":[{"type":"text","text":"hello world"},{"type":"image_url","image_url":{"url":"data:x"}}]}]"#;
        assert_eq!(count(parts), 3 + 1 + 2 + 3);
        let call =
            r#"[{"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"hello","arguments":"hello world"}}]}]"#;
        assert_eq!(count(call), 3 + 1 + 1 + 2 + 3);
    }
}
