//! Metrics of the process and of its async runtime, read when they are asked for.

use metrics::gauge;

/// Reads the gauges anew. Names follow the Prometheus client conventions (`process_*`).
pub fn record() {
    if let Some(bytes) = resident_bytes() {
        gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(as_gauge(entries.count()));
    }
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let runtime = runtime.metrics();
        gauge!("tokio_workers").set(as_gauge(runtime.num_workers()));
        gauge!("tokio_alive_tasks").set(as_gauge(runtime.num_alive_tasks()));
        gauge!("tokio_global_queue_depth").set(as_gauge(runtime.global_queue_depth()));
    }
}

/// The resident set from `/proc/self/status`, which says kilobytes whatever the page size.
fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating point; counts here are small")]
fn as_gauge(count: usize) -> f64 {
    count as f64
}
