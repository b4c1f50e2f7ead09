//! When Stripe is asked again: as it says, with the same key, and never all at once [B-63, B-67].

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use billing_service::stripe::call::Call;
use billing_service::stripe::transport::{Transport, TransportError};
use chassis::Random;
use futures::future::join_all;
use identity::Scopes;
use serde_json::json;
use stripe_simulator::{Options, Settings, Start, StripeSimulator};
use testkit::eventually;

use super::app::App;

/// The status of an answer that never comes.
const NEVER: u16 = 0;

/// An answer: its status, and a header that it has.
type Answer = (u16, Option<(&'static str, &'static str)>);

/// A Stripe that answers what it is told to, in turn, and 200 afterwards.
#[derive(Clone, Default)]
struct Told {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    keys: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Told {
    async fn serve(answers: impl IntoIterator<Item = Answer>) -> (Self, String) {
        let told = Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = told.clone();
        let router = Router::new().fallback(move |request: Request| {
            let answer = asked.answer(&request);
            async move {
                match answer {
                    Some(answer) => answer,
                    None => pending().await,
                }
            }
        });
        let connections = told.connections.clone();
        let listener = listener.tap_io(move |_| {
            connections.fetch_add(1, Ordering::Relaxed);
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        (told, url)
    }

    fn answer(&self, request: &Request) -> Option<Response> {
        let key = request.headers().get("idempotency-key").map_or("", |key| key.to_str().unwrap());
        self.keys.lock().unwrap().push(key.to_owned());
        let (status, header) = self.answers.lock().unwrap().pop_front().unwrap_or((200, None));
        if status == NEVER {
            return None;
        }
        let body = axum::Json(json!({"id": "cus_1", "error": {"type": "api_error"}}));
        let header = header.map(|(name, value)| [(HeaderName::from_static(name), HeaderValue::from_static(value))]);
        Some((StatusCode::from_u16(status).unwrap(), header.into_iter().flatten().collect::<HeaderMap>(), body).into_response())
    }

    fn keys(&self) -> Vec<String> {
        self.keys.lock().unwrap().clone()
    }
}

fn transport(url: &str) -> Transport {
    Transport::new(url, "sk_test_x".to_owned().into(), 0, Random::system()).unwrap()
}

async fn asked(answers: impl IntoIterator<Item = Answer>) -> (Result<serde_json::Value, TransportError>, Vec<String>) {
    let (told, url) = Told::serve(answers).await;
    let answer = transport(&url).ask_patiently(&Call::post("/refunds", "the key")).await;
    (answer, told.keys())
}

/// How many of a burst Stripe refuses, where it admits ten in a second and is asked so many times in one at most. Its seconds are real ones,
/// as those of the pace are: three in a second leave room for a machine that is busy.
async fn refused_of_a_burst(per_second: u32) -> usize {
    let settings = Settings { requests_per_second: Some(10), ..Settings::default() };
    let stripe = StripeSimulator::start(Options { start: Start::Now, settings, ..Options::default() }).await.unwrap();
    let transport = Transport::new(&stripe.url, "sk_test_x".to_owned().into(), per_second, Random::system()).unwrap();
    let burst = (0..12).map(|number| {
        let call = Call::post("/customers", format!("key-{number}"));
        let transport = transport.clone();
        async move { transport.ask(&call).await }
    });
    let answers = join_all(burst).await;
    let refused = |error: &TransportError| error.status() == Some(429) && error.code() == Some("rate_limit") && !error.is_final();
    answers.iter().map(|answer| usize::from(answer.as_ref().is_err_and(refused))).sum()
}

/// [B-67]
#[tokio::test]
async fn a_burst_of_ours_waits_here_and_is_not_refused_there() {
    assert_eq!(refused_of_a_burst(3).await, 0);
}

/// [B-63] [B-67]
#[tokio::test]
async fn what_stripe_says_about_trying_again_counts_more_than_its_status() {
    for (status, header, tries) in [
        (500, None, 2),
        (409, None, 2),
        (429, None, 2),
        (400, None, 1),
        (402, None, 1),
        (500, Some(("stripe-should-retry", "false")), 1),
        (400, Some(("stripe-should-retry", "true")), 2),
    ] {
        let (answer, keys) = asked([(status, header)]).await;
        assert_eq!((answer.is_ok(), keys), (tries == 2, vec!["the key".to_owned(); tries]), "{status} {header:?}");
    }
}

/// [B-67]
#[tokio::test]
async fn whoever_waits_is_not_kept_for_as_long_as_stripe_wants_to_be_left_alone() {
    let (answer, keys) = asked([(429, Some(("retry-after", "0"))), (429, Some(("retry-after", "60")))]).await;
    assert_eq!((answer.unwrap_err().status(), keys.len()), (Some(429), 2), "at once, and then not for a minute");
}

/// [B-67] An answer never comes: of two calls that are made at once the one that somebody waits for ends first, after an answer that was to
/// be asked for again as without one; and so does a page for which a customer must be made.
#[tokio::test]
async fn whoever_waits_is_told_before_the_time_of_a_single_call_is_over_that_stripe_does_not_answer() {
    let (_, url) = Told::serve([(NEVER, None); 64]).await;
    let (_, halting) = Told::serve([(500, None), (NEVER, None)]).await;
    let app =
        App::with(|config| (config.stripe.secret_key, config.stripe.api_base) = (Some("sk_test_x".to_owned().into()), url.clone())).await;
    let (_, client) = app.organization_with(Scopes::known(["billing:read", "billing:write"]));
    let (stripe, halting, call) = (transport(&url), transport(&halting), Call::post("/refunds", "the key"));
    let portal = json!({"return_url": "https://shop.example.com/account"});
    let patient =
        async { tokio::join!(stripe.ask_patiently(&call), halting.ask_patiently(&call), client.post("/v1/portal-sessions", &portal)) };
    let (one, other, portal) = tokio::select! {
        biased;
        single = stripe.ask(&call) => panic!("a single call ended first: {single:?}"),
        told = patient => told,
    };
    assert!(matches!((one, other), (Err(TransportError::Late), Err(TransportError::Late))));
    assert_eq!(portal.expect(503).header("retry-after"), "1");
}

/// [B-67] Errors too leave a connection as it can be used again.
#[tokio::test]
async fn calls_one_after_the_other_share_a_connection_that_stays_open() {
    let (told, url) = Told::serve([(200, None), (400, None), (500, None), (429, Some(("retry-after", "0")))]).await;
    let stripe = transport(&url);
    for number in 0..5 {
        let answer = stripe.ask(&Call::post("/refunds", format!("key {number}"))).await;
        assert_eq!(answer.is_ok(), number % 4 == 0);
    }
    stripe.clone().ask(&Call::get("/refunds")).await.unwrap();
    assert_eq!((told.keys().len(), told.connections.load(Ordering::Relaxed)), (6, 1));
}

/// [B-63] [B-67] Many that fail together do not come back together, and none before Stripe wants it.
#[tokio::test]
async fn what_is_tried_again_later_waits_as_long_as_stripe_asks_for_and_a_while_of_its_own() {
    const ORGANIZATIONS: usize = 8;
    let (told, url) = Told::serve([(429, Some(("retry-after", "3000"))); ORGANIZATIONS]).await;
    let app = App::with(|config| (config.stripe.secret_key, config.stripe.api_base) = (Some("sk_test_x".to_owned().into()), url)).await;
    for number in 0..ORGANIZATIONS {
        let (organization, _) = app.organization();
        let payload = json!({"organization_id": organization, "name": "Ada", "owner_id": "usr_0197f0a0000070008000000000000001",
            "billing_email": "ada@example.com", "created_at": app.clock.now()})
        .to_string();
        let (id, fields) = (format!("evt-{number}"), ("kind", "organization.created"));
        let fields = [("id", id.as_str()), fields, ("payload", payload.as_str()), ("traceparent", "")];
        chassis::streams::publish(&app.redis.redis, "trivet:events:auth", &fields, None).await.unwrap();
    }
    let waiting = "select count(*) from stripe_customers where next_attempt_at between $1::timestamptz + interval '3000 s' and $1::timestamptz + interval '3751 s'";
    eventually("all wait", || async {
        let waiting: i64 = sqlx::query_scalar(waiting).bind(app.clock.now()).fetch_one(&app.database.owner).await.unwrap();
        (usize::try_from(waiting) == Ok(ORGANIZATIONS)).then_some(())
    })
    .await;
    assert!(app.count("select count(distinct next_attempt_at) from stripe_customers").await > 1, "they come back together");
    assert_eq!(told.keys().len(), ORGANIZATIONS, "each has asked once");
}
