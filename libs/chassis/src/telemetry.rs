//! Traces, logs and metrics of a process.
//!
//! Spans go to an OTLP/HTTP collector through a bounded queue on a thread of its own: a collector that is slow or dead costs
//! dropped spans and nothing else. Logs are JSON lines on standard output with the trace they belong to (people get a
//! readable format on a terminal). Metrics are rendered for Prometheus on the private listener.

mod lines;
mod process;
pub mod propagation;

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::steps::{self, Steps, Watcher};

pub use lines::JsonLines;
pub use propagation::{continue_from, current_traceparent, link_to_current, trace_id};

const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often recorded samples are summed up.
const UPKEEP: Duration = Duration::from_secs(5);
/// Spans that wait for the collector; what does not fit is dropped.
const QUEUE: usize = 4096;

crate::settings! {
    /// What a process tells about itself.
    pub struct TelemetryConfig {
        /// Which log lines are written, as levels by target (`info`, `chat_service=debug,info`).
        pub filter: String = default "TRIVET_LOG" "info",
        /// `json`, `text`, or `auto`: text on a terminal, JSON elsewhere.
        pub format: String = default "TRIVET_LOG_FORMAT" "auto",
        /// Base URL of an OTLP/HTTP collector such as `http://jaeger:4318`; without it no span leaves the process.
        pub otlp_endpoint: Option<String> = optional "OTEL_EXPORTER_OTLP_ENDPOINT",
        /// Share of the traces begun here that are exported, from 0 to 1; traces begun elsewhere follow their caller.
        pub sample_ratio: f64 = default "OTEL_TRACES_SAMPLER_ARG" "1.0",
    }
}

/// Keeps telemetry running; flushes within two seconds when it ends.
#[derive(Debug)]
pub struct TelemetryGuard(SdkTracerProvider);

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(error.message = %error, "the last spans did not reach the collector");
        }
    }
}

/// Starts telemetry for the process.
///
/// # Errors
/// When the filter or the endpoint is malformed, or telemetry was started before.
pub fn init(config: &TelemetryConfig, service: &'static str, version: &'static str) -> anyhow::Result<TelemetryGuard> {
    init_watched(config, service, version, None)
}

/// The same, with somebody who is told of [steps](crate::steps).
///
/// # Errors
/// As [`init`].
pub fn init_watched(
    config: &TelemetryConfig,
    service: &'static str,
    version: &'static str,
    watcher: Option<Watcher>,
) -> anyhow::Result<TelemetryGuard> {
    let provider = tracer_provider(config, service, version)?;
    let filter = steps::filtered(config.filter.parse()?, watcher);
    let json = config.format == "json" || (config.format != "text" && !std::io::stdout().is_terminal());
    let lines = if json { JsonLines::new(std::io::stdout).boxed() } else { tracing_subscriber::fmt::layer().boxed() };
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("trivet")).with_location(false).with_threads(false);
    tracing_subscriber::registry().with(filter).with(traces).with(lines).with(Steps(watcher)).try_init()?;
    metrics_handle();
    Ok(TelemetryGuard(provider))
}

fn tracer_provider(config: &TelemetryConfig, service: &'static str, version: &'static str) -> anyhow::Result<SdkTracerProvider> {
    let resource = Resource::builder_empty()
        .with_attributes([
            opentelemetry::KeyValue::new("service.name", service),
            opentelemetry::KeyValue::new("service.namespace", "trivet"),
            opentelemetry::KeyValue::new("service.version", version),
        ])
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    let mut builder = SdkTracerProvider::builder().with_resource(resource).with_sampler(sampler);
    if let Some(endpoint) = &config.otlp_endpoint {
        crate::http::client::install_tls();
        // The export runs on the processor's own thread, outside the async runtime: hence a blocking client.
        let client = std::thread::spawn(reqwest::blocking::Client::new)
            .join()
            .map_err(|_| anyhow::anyhow!("the exporter's HTTP client could not be made"))?;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(Duration::from_millis(500)).build();
        builder = builder.with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build());
    }
    Ok(builder.build())
}

/// The process's metrics; the recorder is installed at first use.
fn metrics_handle() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
    HANDLE.get_or_init(|| PrometheusBuilder::new().set_buckets(&buckets).ok()?.install_recorder().ok()).as_ref()
}

/// Sums up what histograms have recorded, every few seconds until the token is cancelled: samples are kept one by one until then, and
/// nobody may ever ask for the metrics.
pub async fn keep_metrics(stop: CancellationToken) {
    let Some(handle) = metrics_handle() else { return stop.cancelled().await };
    while !stop.is_cancelled() {
        handle.run_upkeep();
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(UPKEEP) => {}
        }
    }
}

/// All metrics of the process in Prometheus' text format, with those of the process and its runtime.
#[must_use]
pub fn render_metrics() -> String {
    let Some(handle) = metrics_handle() else { return String::new() };
    process::record();
    handle.run_upkeep();
    handle.render()
}
