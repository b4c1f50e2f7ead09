//! A service's listeners, tasks and end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use chassis::health::Readiness;
use chassis::host::Host;
use chassis::http::HttpConfig;
use futures::future::join_all;
use futures::{FutureExt, poll};
use testkit::eventually;
use testkit::http::TestClient;
use tokio::sync::{Notify, Semaphore};
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

/// A service whose one check counts how often it looks, and is fine while `fine` says so.
fn counted(readiness: &Readiness, fine: &Arc<AtomicBool>) -> Arc<AtomicU64> {
    let looks = Arc::new(AtomicU64::new(0));
    let (count, fine) = (Arc::clone(&looks), Arc::clone(fine));
    readiness.register("counted", move || {
        count.fetch_add(1, Ordering::SeqCst);
        let found = if fine.load(Ordering::SeqCst) { Ok(()) } else { Err("away".to_owned()) };
        async move { found }
    });
    looks
}

#[tokio::test]
async fn strangers_who_ask_whether_a_service_is_ready_have_its_checks_look_once_a_second_at_most() {
    let host = Host::bind(&HttpConfig::for_tests()).await.unwrap();
    let (public, private) = (TestClient::new(host.public_addr().unwrap()), TestClient::new(host.private_addr().unwrap()));
    let (looks, stop) = (counted(&host.readiness(), &Arc::new(AtomicBool::new(true))), CancellationToken::new());
    tokio::spawn(host.run(Router::new(), Router::new(), stop.clone()));
    let _stop = stop.drop_guard();
    let began = Instant::now();
    for _ in 0..5 {
        let answers = join_all((0..40).map(|number| if number % 2 == 0 { public.get("/ready") } else { private.get("/ready") })).await;
        assert!(answers.into_iter().all(|answer| answer.expect(200).json["checks"]["counted"] == "ok"));
    }
    // The first at once, and each later one a second after the one before it.
    let looks = looks.load(Ordering::SeqCst);
    assert!((1..=1 + began.elapsed().as_secs()).contains(&looks), "{looks} looks");
}

#[tokio::test]
async fn what_the_checks_found_is_told_until_they_look_again_and_then_what_they_find_then() {
    let (readiness, fine) = (Readiness::default(), Arc::new(AtomicBool::new(false)));
    let looks = counted(&readiness, &fine);
    assert_eq!(readiness.recent().await.checks["counted"], "away");
    fine.store(true, Ordering::SeqCst);
    eventually("being ready again", || async { readiness.recent().await.ready.then_some(()) }).await;
    fine.store(false, Ordering::SeqCst);
    eventually("being told that it is away", || async { (!readiness.recent().await.ready).then_some(()) }).await;
    assert_eq!(looks.load(Ordering::SeqCst), 3, "it was looked at more often than it had to be");
}

#[tokio::test]
async fn whoever_asks_while_the_checks_look_waits_for_what_they_find_also_when_who_asked_first_has_left() {
    let readiness = Readiness::default();
    let (looks, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
    let (count, wait) = (Arc::clone(&looks), Arc::clone(&gate));
    readiness.register("slow", move || {
        count.fetch_add(1, Ordering::SeqCst);
        let wait = Arc::clone(&wait);
        async move { wait.acquire().await.map(drop).map_err(|error| error.to_string()) }
    });
    let mut first = Box::pin(readiness.recent());
    assert!(poll!(first.as_mut()).is_pending());
    drop(first);
    eventually("a look", || async { (looks.load(Ordering::SeqCst) == 1).then_some(()) }).await;
    let mut others: Vec<_> = (0..10).map(|_| Box::pin(readiness.recent())).collect();
    for other in &mut others {
        assert!(poll!(other.as_mut()).is_pending());
    }
    gate.add_permits(1);
    let ready = join_all(others).await;
    assert!(ready.iter().all(|told| told.checks == ready[0].checks), "{ready:?}");
    assert_eq!(looks.load(Ordering::SeqCst), 1, "somebody had it looked at again");
}

/// [B-81]
#[tokio::test]
async fn that_a_service_is_stopping_is_told_at_once_although_it_was_just_ready() {
    let readiness = Readiness::default();
    counted(&readiness, &Arc::new(AtomicBool::new(true)));
    assert!(readiness.recent().await.ready);
    readiness.drain();
    let told = readiness.recent().now_or_never().unwrap();
    assert!(!told.ready && told.checks.contains_key("draining"), "{told:?}");
}
