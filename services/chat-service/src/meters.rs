//! This service's metrics. No label holds what a client can choose [trap 19].

use std::time::Duration;

use contracts::usage::UsageEvent;

/// A completion was admitted.
pub fn admitted() {
    metrics::gauge!("chat_in_flight").increment(1.0);
}

/// A completion was settled.
pub fn settled(event: &UsageEvent) {
    metrics::gauge!("chat_in_flight").decrement(1.0);
    metrics::counter!("chat_completions_total", "outcome" => event.outcome.as_str(), "counted_by" => event.counted_by.as_str())
        .increment(1);
    metrics::counter!("chat_tokens_total", "direction" => "input").increment(event.usage.total_input());
    metrics::counter!("chat_tokens_total", "direction" => "output").increment(event.usage.total_output());
}

/// How many places of the settlement queue are taken, by completions in flight and by settlements that wait.
#[expect(clippy::cast_precision_loss, reason = "a gauge of thousands")]
pub fn queue(taken: usize) {
    metrics::gauge!("chat_settlement_queue_taken").set(taken as f64);
}

/// Time that we added before the first item: everything but the wait for the provider.
pub fn overhead(time: Duration) {
    metrics::histogram!("chat_overhead_seconds").record(time.as_secs_f64());
}

/// A settlement could not be handed over at the end of the process.
pub fn lost(count: usize) {
    metrics::counter!("chat_settlements_lost_total").increment(count as u64);
}

/// billing-service was asked what an organization may do.
pub fn entitlements_read(answered: bool) {
    metrics::counter!("chat_entitlements_reads_total", "outcome" => if answered { "answered" } else { "failed" }).increment(1);
}

/// So many bytes more of bodies are held.
#[expect(clippy::cast_precision_loss, reason = "a gauge of megabytes")]
pub fn bodies_held(bytes: usize) {
    metrics::gauge!("chat_body_bytes_held").increment(bytes as f64);
}

/// So many bytes of bodies are held no more.
#[expect(clippy::cast_precision_loss, reason = "a gauge of megabytes")]
pub fn bodies_free(bytes: usize) {
    metrics::gauge!("chat_body_bytes_held").decrement(bytes as f64);
}
