//! Traces on their way to a collector. A file of its own: telemetry is started once in a process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use chassis::telemetry::{TelemetryConfig, continue_from, current_traceparent, init, trace_id};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector that keeps what it gets, until it hangs.
async fn collector(hang: Arc<AtomicBool>) -> (String, Arc<Mutex<Vec<u8>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let route = post(move |body: Bytes| async move {
        if hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        keep.lock().unwrap().extend_from_slice(&body);
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", route)).await });
    (format!("http://{address}"), kept)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_the_collector_in_the_trace_they_continue_and_a_dead_collector_blocks_nothing() {
    let hang = Arc::new(AtomicBool::new(false));
    let (endpoint, kept) = collector(Arc::clone(&hang)).await;
    let config = TelemetryConfig { filter: "info".into(), format: "json".into(), otlp_endpoint: Some(endpoint), sample_ratio: 1.0 };
    let telemetry = init(&config, "test-service", "1.2.3").unwrap();
    {
        let span = tracing::info_span!("continued", some.field = 7);
        continue_from(&span, PARENT);
        let _entered = span.enter();
        assert_eq!(trace_id().as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        let carried = current_traceparent().unwrap();
        assert!(carried.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !carried.contains("b7ad6b7169203331"), "{carried}");
        tracing::info_span!("child").in_scope(|| tracing::info!("inside"));
    }
    let span = tracing::info_span!("malformed");
    continue_from(&span, "nonsense");
    drop(span);
    testkit::eventually("the spans", || async { contains(&kept.lock().unwrap(), b"child").then_some(()) }).await;
    let bytes = kept.lock().unwrap().clone();
    for part in [&b"continued"[..], b"test-service", b"service.version", &0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes()] {
        assert!(contains(&bytes, part), "{:?} did not reach the collector", String::from_utf8_lossy(part));
    }
    assert!(init(&config, "test-service", "1.2.3").is_err(), "telemetry was started twice");
    // Many more than wait for a collector: those that do not fit are dropped, and nobody waits, not even the end of the process.
    hang.store(true, Ordering::SeqCst);
    for _ in 0..20_000 {
        tracing::info_span!("unheard").in_scope(|| ());
    }
    // Two seconds are for the last spans. Without a limit of our own it would be the library's five, and what waits takes far longer still.
    let ended = tokio::time::timeout(Duration::from_secs(4), tokio::task::spawn_blocking(move || drop(telemetry))).await;
    ended.expect("the end of the process does not wait for the collector").unwrap();
}
