//! The parts of `OpenAI`'s bodies that are documented here. They are never built: bodies pass as they are.
#![expect(dead_code, clippy::struct_field_names, reason = "only their schemas are used, and the names are not ours")]

use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

/// A completion that is asked for. Any other field of `OpenAI`'s API may be given too, but for what there is no price for here: fields
/// that choose another model, provider or account (`models`, `fallbacks`, `api_base` and the like) and paid extras are refused.
#[derive(Debug, ToSchema)]
pub struct CompletionRequest {
    /// A model of `/v1/models`.
    model: String,
    /// The conversation so far.
    #[schema(min_items = 1)]
    messages: Vec<Message>,
    /// Whether the answer comes in chunks, as server-sent events.
    stream: Option<bool>,
    /// For streams.
    stream_options: Option<StreamOptions>,
    /// How many answers.
    #[schema(minimum = 1, maximum = 128)]
    n: Option<u32>,
    /// Longest answer, in tokens; never more than the model's.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<u64>,
    /// The older name of the same.
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
    /// `auto`, `default` or `flex`; other tiers have no price here.
    service_tier: Option<String>,
    /// Tools that the client runs itself, of the types `function` and `custom`; those that a provider runs have no price here.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<String>,
    /// `text`, `audio` or both.
    modalities: Option<Vec<String>>,
}

/// A message of the conversation.
#[derive(Debug, ToSchema)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    role: String,
    #[schema(schema_with = text_or_parts)]
    content: Option<String>,
    /// Who speaks, where several have the same role.
    name: Option<String>,
}

fn text_or_parts() -> Schema {
    let types = SchemaType::from_iter([Type::String, Type::Array, Type::Null]);
    ObjectBuilder::new().schema_type(types).description(Some("A text, or a list of parts.")).build().into()
}

/// Options of a stream.
#[derive(Debug, ToSchema)]
pub struct StreamOptions {
    /// Whether the last chunk has the usage.
    include_usage: Option<bool>,
}

/// An answer.
#[derive(Debug, ToSchema)]
pub struct Completion {
    /// The provider's id of it.
    id: String,
    /// `chat.completion`
    object: String,
    /// The answers.
    choices: Vec<Choice>,
    /// What it took, where the provider says it.
    usage: Option<Usage>,
}

/// One of the answers.
#[derive(Debug, ToSchema)]
pub struct Choice {
    /// Its number.
    index: u32,
    /// The answer.
    message: Message,
    /// Why it ended.
    finish_reason: String,
}

/// What it took.
#[derive(Debug, ToSchema)]
pub struct Usage {
    /// Tokens of the prompt.
    prompt_tokens: u64,
    /// Tokens of the answers.
    completion_tokens: u64,
    /// Both.
    total_tokens: u64,
}

/// A chunk of an answer; the stream ends with `data: [DONE]`, and an answer that broke off does not.
#[derive(Debug, ToSchema)]
pub struct CompletionChunk {
    /// The provider's id of the answer.
    id: String,
    /// `chat.completion.chunk`
    object: String,
    /// What is new.
    choices: Vec<ChunkChoice>,
    /// What the answer took, in the last chunk where `stream_options.include_usage` asks for it.
    usage: Option<Usage>,
}

/// What is new in one of the answers.
#[derive(Debug, ToSchema)]
pub struct ChunkChoice {
    /// Its number.
    index: u32,
    /// What is new.
    delta: Delta,
    /// Why it ended, in its last chunk.
    finish_reason: Option<String>,
}

/// What is new of a message.
#[derive(Debug, ToSchema)]
pub struct Delta {
    /// `assistant`, in the first chunk.
    role: Option<String>,
    /// The next piece of the text.
    content: Option<String>,
}
