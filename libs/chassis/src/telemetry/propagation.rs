//! W3C Trace Context (traceparent) in and out of the process, over HTTP and over Redis streams.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The name of the header and of the stream field.
pub const TRACEPARENT: &str = "traceparent";

/// The `traceparent` of the current span, if there is one.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// The trace id of the current span, 32 hexadecimal digits.
#[must_use]
pub fn trace_id() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let span_context = span.span_context();
    span_context.is_valid().then(|| span_context.trace_id().to_string())
}

/// Makes `span` a child of the span that `traceparent` names; a malformed one changes nothing.
pub fn continue_from(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let parent = TraceContextPropagator::new().extract(&carrier);
    if parent.span().span_context().is_valid() {
        // Fails only where no trace layer is installed, and then there is nothing to continue.
        let _ = span.set_parent(parent);
    }
}

/// Notes in `span` that it came of what happens in the current span, which is of another trace.
pub fn link_to_current(span: &Span) {
    let context = Span::current().context();
    let current = context.span().span_context().clone();
    if current.is_valid() {
        span.add_link(current);
    }
}
