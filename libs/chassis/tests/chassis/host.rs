//! A service's listeners, tasks and end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use chassis::host::Host;
use chassis::http::HttpConfig;
use testkit::eventually;
use testkit::http::TestClient;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A service with one route that answers when it is let go.
struct Slow {
    public: TestClient,
    private: TestClient,
    entered: Arc<Notify>,
    let_go: Arc<Notify>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    task_ended: Arc<AtomicBool>,
}

async fn slow() -> Slow {
    let host = Host::bind(&HttpConfig::for_tests()).await.unwrap();
    let (public, private) = (TestClient::new(host.public_addr().unwrap()), TestClient::new(host.private_addr().unwrap()));
    let (entered, let_go, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
    let task_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&task_ended);
    host.spawn("task", |stop| async move {
        stop.cancelled().await;
        ended.store(true, Ordering::SeqCst);
    });
    let (enter, go) = (Arc::clone(&entered), Arc::clone(&let_go));
    let route = get(move || async move {
        enter.notify_one();
        go.notified().await;
        "done"
    });
    let running = tokio::spawn(host.run(Router::new().route("/slow", route), Router::new(), stop.clone()));
    Slow { public, private, entered, let_go, stop, running, task_ended }
}

/// [B-81] [B21]
#[tokio::test]
async fn stopping_makes_the_service_not_ready_lets_requests_end_and_then_its_tasks() {
    let slow = slow().await;
    slow.private.get("/ready").await.expect(200);
    let client = slow.public.clone();
    let request = tokio::spawn(async move { client.get("/slow").await });
    slow.entered.notified().await;
    slow.stop.cancel();
    // The private listener stays until the end, so that an orchestrator can watch.
    let private = &slow.private;
    let ready = eventually("not being ready", || async { Some(private.get("/ready").await).filter(|ready| ready.status == 503) }).await;
    assert!(ready.text.contains("draining"), "{}", ready.text);
    private.get("/health").await.expect(200);
    assert!(!slow.task_ended.load(Ordering::SeqCst), "a task ended before the last request");
    slow.let_go.notify_one();
    assert_eq!(request.await.unwrap().expect(200).text, "done");
    slow.running.await.unwrap();
    assert!(slow.task_ended.load(Ordering::SeqCst));
}

#[tokio::test]
async fn metrics_are_on_the_private_listener_only_and_tell_of_process_and_runtime() {
    let slow = slow().await;
    slow.public.get("/metrics").await.expect(404);
    let metrics = slow.private.get("/metrics").await.expect(200).text;
    for name in ["process_resident_memory_bytes", "process_open_fds", "tokio_workers", "tokio_alive_tasks"] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_task_that_ends_although_the_service_runs_makes_it_not_ready() {
    let host = Host::bind(&HttpConfig::for_tests()).await.unwrap();
    let client = TestClient::new(host.public_addr().unwrap());
    host.spawn("frail", |_| async { panic!("on purpose") });
    let stop = CancellationToken::new();
    let running = tokio::spawn(host.run(Router::new(), Router::new(), stop.clone()));
    let ready = eventually("not being ready", || async { Some(client.get("/ready").await).filter(|ready| ready.status == 503) }).await;
    assert_eq!(ready.json["checks"]["frail"], "ended unexpectedly");
    client.get("/health").await.expect(200);
    stop.cancel();
    running.await.unwrap();
}
