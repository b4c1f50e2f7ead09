//! OpenTelemetry's semantic conventions for generative AI, in one place because they still change [trap 20]. Prompts and
//! answers are never recorded.

use money::TokenUsage;
use tracing::{Span, field};

/// The client span of a call to a provider.
#[must_use]
pub fn span(provider: &str, model: &str, max_tokens: Option<u64>, request_id: &str) -> Span {
    tracing::info_span!(
        "chat",
        otel.name = format!("chat {model}"),
        otel.kind = "client",
        otel.status_code = field::Empty,
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = provider,
        gen_ai.request.model = model,
        gen_ai.request.max_tokens = max_tokens,
        gen_ai.usage.input_tokens = field::Empty,
        gen_ai.usage.output_tokens = field::Empty,
        error.type = field::Empty,
        trivet.request_id = request_id,
        trivet.outcome = field::Empty,
    )
}

/// Records how the call ended.
pub fn record(span: &Span, usage: &TokenUsage, outcome: &str, failed: bool) {
    span.record("gen_ai.usage.input_tokens", usage.total_input());
    span.record("gen_ai.usage.output_tokens", usage.total_output());
    span.record("trivet.outcome", outcome);
    if failed {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", outcome);
    }
}
