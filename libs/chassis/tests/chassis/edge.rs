//! What every request passes.

use std::time::Duration;

use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Router};
use chassis::Problem;
use chassis::config::{CommaList, FromSetting, Millis};
use chassis::host::Host;
use chassis::http::{HttpConfig, Json, Network, RequestContext};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use testkit::http::TestClient;
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    count: u32,
}

async fn panicking() -> &'static str {
    std::hint::black_box(None).expect("canary of a panic")
}

fn router() -> Router {
    Router::new()
        .route("/who", get(|Extension(context): Extension<RequestContext>| async move { context.client_ip.to_string() }))
        .route(
            "/orders",
            post(|Json(order): Json<Order>| async move { order.lines.iter().map(|line| line.count).sum::<u32>().to_string() }),
        )
        .route("/panic", get(panicking))
        .route(
            "/endless",
            get(|| async { axum::body::Body::from_stream(futures::stream::repeat(Ok::<_, std::convert::Infallible>("more"))) }),
        )
        .route("/never", get(std::future::pending::<()>))
        .route("/busy", get(|| async { Problem::unavailable("the database") }))
}

async fn serve(change: impl FnOnce(&mut HttpConfig)) -> (TestClient, DropGuard) {
    let mut config = HttpConfig::for_tests();
    change(&mut config);
    let host = Host::bind(&config).await.unwrap();
    let (client, stop) = (TestClient::new(host.public_addr().unwrap()), CancellationToken::new());
    tokio::spawn(host.run(router(), Router::new(), stop.clone()));
    (client, stop.drop_guard())
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_any_other_replaced() {
    let (client, _stop) = serve(|_| {}).await;
    assert_eq!(client.header("x-request-id", "abc-1.2_3").get("/who").await.header("x-request-id"), "abc-1.2_3");
    let made = client.header("x-request-id", "a b").get("/who").await;
    assert_eq!(made.header("x-request-id").len(), 32);
    assert_ne!(client.get("/who").await.header("x-request-id"), client.get("/who").await.header("x-request-id"));
}

#[tokio::test]
async fn refusals_are_problems_that_name_the_field_and_the_rule() {
    let (client, _stop) = serve(|_| {}).await;
    let wrong = client.post("/orders", &json!({"lines": [{"count": 1}, {"count": "two"}]})).await.expect(422);
    assert_eq!((wrong.json["code"].as_str(), wrong.header("content-type")), (Some("invalid_request"), "application/problem+json"));
    assert_eq!(wrong.json["errors"][0]["field"], "lines[1].count");
    assert!(!wrong.text.contains("two"), "a value is in the answer: {}", wrong.text);
    assert_eq!(client.post("/orders", &json!({"lines": [], "more": 1})).await.expect(422).json["errors"][0]["field"], "more");
    let broken = client.send(Method::POST, "/orders", Some("{\"lines\": ".into())).await.expect(400);
    assert_eq!(broken.json["code"], "invalid_json");
    let twice = client.send(Method::POST, "/orders", Some("{\"lines\": []} {}".into())).await.expect(400);
    assert_eq!(twice.json["code"], "invalid_json");
    client.header("content-type", "text/plain").send(Method::POST, "/orders", Some("{}".into())).await.expect(415);
    assert_eq!(client.get("/nowhere").await.expect(404).json["type"], "urn:trivet:problem:not_found");
    assert_eq!(client.get("/orders").await.expect(405).json["code"], "method_not_allowed");
}

/// [I-78]
#[tokio::test]
async fn a_body_that_is_too_large_or_too_deep_is_refused() {
    let (client, _stop) = serve(|config| config.body_limit = 1000).await;
    let large = json!({"lines": vec![json!({"count": 1}); 200]});
    assert_eq!(client.post("/orders", &large).await.expect(413).json["code"], "payload_too_large");
    let (client, _stop) = serve(|_| {}).await;
    let deep = format!("{{\"lines\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(client.send(Method::POST, "/orders", Some(deep)).await.status.is_client_error());
}

#[tokio::test]
async fn a_panic_is_a_500_with_the_request_id_and_nothing_of_the_panic() {
    let (client, _stop) = serve(|_| {}).await;
    let answer = client.header("x-request-id", "r-1").get("/panic").await.expect(500);
    assert_eq!((answer.json["code"].as_str(), answer.header("x-request-id")), (Some("internal"), "r-1"));
    assert!(!answer.text.contains("canary"), "{}", answer.text);
    client.get("/who").await.expect(200);
}

#[tokio::test]
async fn one_request_too_many_is_refused_at_once_and_told_to_come_back() {
    let (client, _stop) = serve(|config| {
        config.max_concurrency = 1;
        config.timeout = Millis(Duration::from_mins(1));
    })
    .await;
    let first = client.clone();
    let waiting = tokio::spawn(async move { first.get("/never").await });
    let refused = testkit::eventually("a refusal", || async { Some(client.get("/who").await).filter(|answer| answer.status == 503) }).await;
    assert_eq!((refused.json["code"].as_str(), refused.header("retry-after")), (Some("unavailable"), "1"));
    waiting.abort();
    testkit::eventually("a free place", || async { (client.get("/who").await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn probes_need_no_place_among_the_requests() {
    let (client, _stop) = serve(|config| config.max_concurrency = 0).await;
    client.get("/who").await.expect(503);
    client.get("/health").await.expect(200);
    client.get("/ready").await.expect(200);
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_refused_and_gives_its_place_back() {
    let (client, _stop) = serve(|config| {
        config.max_concurrency = 1;
        config.body_timeout = Millis(Duration::from_millis(50));
    })
    .await;
    let mut socket = tokio::net::TcpStream::connect(client.address()).await.unwrap();
    let head = b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"li";
    tokio::io::AsyncWriteExt::write_all(&mut socket, head).await.unwrap();
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut socket, &mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    drop(socket);
    testkit::eventually("a free place", || async { (client.get("/who").await.status == 200).then_some(()) }).await;
}

/// What waits to be written keeps the rest of an answer from being looked at, and its deadline too.
#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_gives_its_place_back() {
    let (client, _stop) = serve(|config| {
        config.max_concurrency = 1;
        config.stall_timeout = Millis(Duration::from_millis(50));
    })
    .await;
    let mut socket = tokio::net::TcpStream::connect(client.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut socket, &mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    testkit::eventually("a free place", || async { (client.get("/who").await.status == 200).then_some(()) }).await;
    drop(socket);
}

/// [trap 19]
#[tokio::test]
async fn invented_methods_are_one_time_series() {
    let config = HttpConfig::for_tests();
    let host = Host::bind(&config).await.unwrap();
    let (client, private) = (TestClient::new(host.public_addr().unwrap()), TestClient::new(host.private_addr().unwrap()));
    let stop = CancellationToken::new();
    tokio::spawn(host.run(router(), Router::new(), stop.clone()));
    let _stop = stop.drop_guard();
    for number in 0..50 {
        client.send(Method::from_bytes(format!("INVENTED{number}").as_bytes()).unwrap(), "/who", None).await.expect(405);
    }
    let metrics = private.get("/metrics").await.expect(200).text;
    assert!(metrics.contains("method=\"_OTHER\"") && !metrics.contains("INVENTED"), "{metrics}");
}

#[tokio::test]
async fn a_service_that_speaks_another_api_tells_the_edges_refusals_in_its_shape() {
    let mut host = Host::bind(&HttpConfig { body_limit: 10, ..HttpConfig::for_tests() }).await.unwrap();
    host.render_refusals(|problem| (problem.status(), format!("no: {}", problem.code())).into_response());
    let client = TestClient::new(host.public_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(host.run(router(), Router::new(), stop.clone()));
    let _stop = stop.drop_guard();
    assert_eq!(client.get("/nowhere").await.expect(404).text, "no: not_found");
    assert_eq!(client.post("/orders", &json!({"lines": [{"count": 1}]})).await.expect(413).text, "no: payload_too_large");
    assert_eq!(client.get("/panic").await.expect(500).text, "no: internal");
}

#[tokio::test]
async fn an_answer_that_does_not_begin_in_time_is_a_503() {
    let (client, _stop) = serve(|config| config.timeout = Millis(Duration::from_millis(20))).await;
    assert_eq!(client.get("/never").await.expect(503).header("retry-after"), "1");
}

#[tokio::test]
async fn a_dependency_that_is_away_is_a_503_with_retry_after() {
    let (client, _stop) = serve(|_| {}).await;
    let answer = client.get("/busy").await.expect(503);
    assert_eq!((answer.header("retry-after"), answer.json["detail"].as_str()), ("1", Some("the database is not available")));
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let (client, _stop) = serve(|_| {}).await;
    for path in ["/who", "/nowhere", "/panic", "/health"] {
        let answer = client.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
    }
}

/// [I-19]
#[tokio::test]
async fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
    let (client, _stop) = serve(|_| {}).await;
    assert_eq!(client.header("x-forwarded-for", "198.51.100.7").get("/who").await.text, "127.0.0.1");
    let (client, _stop) = serve(|config| config.trusted_proxies = CommaList(vec![Network::from_setting("127.0.0.0/8").unwrap()])).await;
    assert_eq!(client.header("x-forwarded-for", "203.0.113.9, 198.51.100.7").get("/who").await.text, "198.51.100.7");
}
