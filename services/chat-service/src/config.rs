//! What chat-service reads from its environment.

use chassis::SecretString;
use chassis::config::{CommaList, FromSetting, Millis};
use chassis::http::HttpConfig;
use chassis::redis::RedisConfig;
use chassis::telemetry::TelemetryConfig;
use identity::{AuthClientConfig, IdentityConfig};

use crate::models::ModelCatalog;

/// The field by which the provider is told the longest answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitField(pub llm::LimitField);

impl FromSetting for LimitField {
    fn from_setting(text: &str) -> Result<Self, String> {
        let known = llm::LimitField::ALL.into_iter().find(|field| field.name() == text.trim());
        known.map(Self).ok_or_else(|| "must be max_completion_tokens or max_tokens".to_owned())
    }
}

/// When a settlement is out of this process' hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When Redis has it on its disk.
    Disk,
    /// When Redis has it.
    Memory,
}

impl FromSetting for Durability {
    fn from_setting(text: &str) -> Result<Self, String> {
        match text.trim() {
            "disk" => Ok(Self::Disk),
            "memory" => Ok(Self::Memory),
            _ => Err("must be disk or memory".to_owned()),
        }
    }
}

chassis::settings! {
    /// Everything chat-service needs to serve.
    pub struct ChatConfig {
        /// Listeners and limits.
        pub http: HttpConfig = nested,
        /// Logs, traces, metrics.
        pub telemetry: TelemetryConfig = nested,
        /// Redis.
        pub redis: RedisConfig = nested,
        /// Issuer and audience of tokens.
        pub identity: IdentityConfig = nested,
        /// How auth-service is reached.
        pub auth: AuthClientConfig = nested,
        /// Private base URL of billing-service, such as `http://billing-service:9003`.
        pub billing_url: String = required "TRIVET_BILLING_URL",
        /// The models that are offered: `builtin`, a JSON list, or the path of a file with one. Each entry has `id`, `context_window` and `max_output_tokens`, and may have `provider_model`, `image_tokens`, `owned_by` and `created`.
        pub models: ModelCatalog = default "CHAT_MODELS" "builtin",
        /// The provider.
        pub provider: ProviderConfig = nested,
        /// What happens when a client leaves.
        pub drain: DrainConfig = nested,
        /// What is known of organizations' plans.
        pub entitlements: EntitlementsConfig = nested,
        /// Limits of callers and memory.
        pub limits: LimitsConfig = nested,
    }
}

chassis::settings! {
    /// The model provider, `OpenAI` or one that speaks its API.
    pub struct ProviderConfig {
        /// Base URL including the version, such as `http://llm-simulator:4010/v1`.
        pub base_url: String = default "OPENAI_BASE_URL" "https://api.openai.com/v1",
        /// The provider's key; without it no `Authorization` is sent.
        pub api_key: Option<SecretString> = optional "OPENAI_API_KEY",
        /// Name of the provider in traces and usage rows (OpenTelemetry `gen_ai.provider.name`).
        pub name: String = default "CHAT_PROVIDER" "openai",
        /// Milliseconds to connect.
        pub connect_timeout: Millis = default "CHAT_CONNECT_TIMEOUT_MS" "2000",
        /// Milliseconds until the first item of a stream must have come.
        pub first_byte_timeout: Millis = default "CHAT_FIRST_BYTE_TIMEOUT_MS" "60000",
        /// Milliseconds without anything in the middle of a stream.
        pub idle_timeout: Millis = default "CHAT_IDLE_TIMEOUT_MS" "30000",
        /// Milliseconds that a completion may take in all.
        pub deadline: Millis = default "CHAT_DEADLINE_MS" "300000",
        /// Milliseconds of silence after which a streaming client gets a comment.
        pub keep_alive: Millis = default "CHAT_KEEP_ALIVE_MS" "15000",
        /// Largest event of a stream, in bytes.
        pub max_frame_bytes: usize = default "CHAT_MAX_FRAME_BYTES" "1048576",
        /// Largest answer that is not streamed, in bytes.
        pub max_response_bytes: usize = default "CHAT_MAX_RESPONSE_BYTES" "16777216",
        /// Request headers of clients that are passed on to the provider; none by default.
        pub forward_headers: CommaList<String> = default "CHAT_FORWARD_HEADERS" "",
        /// Which of `max_completion_tokens` and `max_tokens` the provider heeds: the limit is then always sent, and under that name alone. By default it is sent as the client wrote it, if it did.
        pub limit_field: Option<LimitField> = optional "CHAT_LIMIT_FIELD",
    }
}

chassis::settings! {
    /// An answer whose client left is read to its end, for its usage, within these caps.
    pub struct DrainConfig {
        /// Milliseconds.
        pub time: Millis = default "CHAT_DRAIN_MS" "30000",
        /// Bytes of a stream.
        pub max_bytes: usize = default "CHAT_DRAIN_MAX_BYTES" "4194304",
        /// Answers at once, streamed or whole; one more is ended at once and counted.
        pub max_streams: usize = default "CHAT_DRAIN_MAX_STREAMS" "256",
    }
}

chassis::settings! {
    /// What is known of organizations' plans, budgets and limits.
    pub struct EntitlementsConfig {
        /// Milliseconds after which what an organization may do is read again, beside its requests: for a change whose news was lost.
        pub refresh: Millis = default "CHAT_ENTITLEMENTS_REFRESH_MS" "60000",
        /// Milliseconds for which what was read may serve while billing-service is away; afterwards requests are answered 503.
        pub oldest: Millis = default "CHAT_ENTITLEMENTS_OLDEST_MS" "600000",
        /// Organizations of which it is kept; those that asked longest ago are forgotten first.
        pub most: usize = default "CHAT_ENTITLEMENTS_MAX" "10000",
    }
}

chassis::settings! {
    /// Limits of callers and memory.
    pub struct LimitsConfig {
        /// Largest request body, in bytes; counts here instead of `TRIVET_HTTP_BODY_LIMIT_BYTES`, because prompts hold images and files.
        pub body_limit: usize = default "CHAT_BODY_LIMIT_BYTES" "33554432",
        /// Bytes of request bodies in flight at once, not counting those of up to 64 KiB; one more is answered 503. One organization holds a quarter of it at most, or one body of the largest size; one more of its bodies is answered 429. Up to three times as much memory is used. Never less than `CHAT_BODY_LIMIT_BYTES`.
        pub body_bytes_in_flight: usize = default "CHAT_BODY_BYTES_IN_FLIGHT" "134217728",
        /// Requests of one API key (or one user) in the window.
        pub requests_per_window: u32 = default "CHAT_REQUESTS_PER_MINUTE" "600",
        /// Requests of one organization in the window; without it there is no such limit.
        pub organization_requests_per_window: Option<u32> = optional "CHAT_ORGANIZATION_REQUESTS_PER_MINUTE",
        /// Tokens, in and out, of one API key (or one user) in a minute of the clock, counted by the most that a request can use and corrected at its end; without it there is no such limit.
        pub tokens_per_minute: Option<u32> = optional "CHAT_TOKENS_PER_MINUTE",
        /// The same for one organization.
        pub organization_tokens_per_minute: Option<u32> = optional "CHAT_ORGANIZATION_TOKENS_PER_MINUTE",
        /// Milliseconds of the window.
        pub window: Millis = default "CHAT_RATE_WINDOW_MS" "60000",
        /// Milliseconds after the deadline of its completion at which a request that nobody settled is given up for dead.
        pub reservation_margin: Millis = default "CHAT_RESERVATION_MARGIN_MS" "60000",
        /// Milliseconds between checkpoints of a stream: what a process that dies has not counted yet is not charged.
        pub checkpoint: Millis = default "CHAT_CHECKPOINT_MS" "1000",
        /// Whether a settlement is kept until Redis has it on its disk (`disk`, needs `appendonly yes`) or only until it answers (`memory`).
        pub durability: Durability = default "CHAT_SETTLEMENT_DURABILITY" "disk",
        /// Completions in flight together with settlements that wait for Redis; one more is answered 503.
        pub settlement_queue: usize = default "CHAT_SETTLEMENT_QUEUE" "4096",
        /// Bytes of an answer's text that are kept for counting; beyond it the count is an estimate.
        pub counted_text: usize = default "CHAT_COUNTED_TEXT_MAX_BYTES" "262144",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_of_the_limit_is_one_of_the_two_that_there_are() {
        assert_eq!(LimitField::from_setting(" max_tokens "), Ok(LimitField(llm::LimitField::MaxTokens)));
        for wrong in ["", "limit", "Max_Tokens"] {
            assert!(LimitField::from_setting(wrong).is_err(), "{wrong}");
        }
    }
}
