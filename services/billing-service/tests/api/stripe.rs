//! Stripe's events, and the customers that are made there.

use super::app::App;
use super::budget_webhooks::{receiver, write};
use super::shop::Shop;
use super::wallet::run;
use billing_service::stripe::signature::sign;
use billing_service::stripe::worker::handle_one;
use chassis::SecretString;
use chassis::config::CommaList;
use futures::future::join_all;
use identity::OrganizationId;
use serde_json::json;
use stripe_simulator::{API_VERSION, Fault, FaultKind};
use testkit::eventually;
use testkit::http::{Answer, TestClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SECRETS: [&str; 2] = ["whsec_old", "whsec_new"];

async fn with_webhooks() -> App {
    App::with(|config| config.stripe.webhook_secrets = CommaList(SECRETS.map(|secret| secret.to_owned().into()).to_vec())).await
}

fn stripe_event(id: &str, kind: &str) -> String {
    json!({"id": id, "object": "event", "type": kind, "livemode": false, "created": 1, "api_version": API_VERSION, "data": {"object": {}}})
        .to_string()
}

async fn deliver(app: &App, body: &str, secret: &str) -> Answer {
    let signature = sign(body.as_bytes(), &SecretString::from(secret.to_owned()), app.clock.now());
    post(&app.public.header("stripe-signature", signature), body).await
}

async fn post(client: &TestClient, body: &str) -> Answer {
    client.send("POST".parse().unwrap(), "/stripe/webhooks", Some(body.to_owned())).await
}

/// [B-7]
#[tokio::test]
async fn without_a_secret_the_endpoint_does_not_exist() {
    let app = App::start().await;
    deliver(&app, &stripe_event("evt_1", "x"), "").await.expect(404);
}

/// [B-6] [B-8]
#[tokio::test]
async fn each_secret_is_accepted_and_anything_else_is_refused_with_nothing_stored() {
    let app = with_webhooks().await;
    let body = stripe_event("evt_1", "x");
    post(&app.public, &body).await.expect(400);
    deliver(&app, &body, "whsec_other").await.expect(400);
    deliver(&app, &format!("{body}{}", " ".repeat(600 * 1024)), SECRETS[0]).await.expect(413);
    assert_eq!(app.count("select count(*) from stripe_events").await, 0);
    deliver(&app, &stripe_event("evt_a", "x"), SECRETS[0]).await.expect(200);
    deliver(&app, &stripe_event("evt_b", "x"), SECRETS[1]).await.expect(200);
    assert_eq!(app.count("select count(*) from stripe_events").await, 2);
}

/// A request to the endpoint that has begun: its head, and so much of its body.
async fn begun(app: &App, headers: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(app.public.address()).await.unwrap();
    let request = format!("POST /stripe/webhooks HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

/// A header as Stripe might send it now, for no body in particular.
fn signed_now(app: &App) -> String {
    format!("stripe-signature: t={},v1=00\r\n", app.clock.now().timestamp())
}

/// [B-8] What is to come of their bodies never comes.
#[tokio::test]
async fn who_says_nothing_of_a_signature_or_announces_too_much_is_refused_before_the_body_is_waited_for() {
    let app = with_webhooks().await;
    let (signature, large) = (signed_now(&app), 512 * 1024 + 1);
    let chunk = format!("{large:x}\r\n{}", "x".repeat(large));
    for (headers, body, status) in [
        ("content-length: 100\r\n".to_owned(), "", "400"),
        ("transfer-encoding: chunked\r\n".to_owned(), "", "400"),
        ("stripe-signature: t=1,v1=00\r\ncontent-length: 100\r\n".to_owned(), "", "400"),
        ("stripe-signature: invented\r\ncontent-length: 100\r\n".to_owned(), "", "400"),
        (format!("{signature}content-length: {large}\r\n"), "", "413"),
        (format!("{signature}content-length: {}\r\n", 2 << 20), "", "413"),
        (format!("{signature}transfer-encoding: chunked\r\n"), chunk.as_str(), "413"),
    ] {
        let (mut socket, mut answer) = (begun(&app, &headers, body).await, [0; 12]);
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{headers}");
    }
    assert_eq!(app.count("select count(*) from stripe_events").await, 0);
}

/// [B-13] As many as there are places for: their bodies begin and do not go on. Stripe is told to come again, and customers notice nothing.
#[tokio::test]
async fn bodies_that_do_not_come_to_their_end_take_the_places_of_events_and_of_nobody_else() {
    let app = with_webhooks().await;
    let (_, client) = app.organization();
    let headers = signed_now(&app) + "content-length: 100\r\n";
    let slow = join_all((0..64).map(|_| begun(&app, &headers, "{"))).await;
    let event = stripe_event("evt_1", "x");
    let refused =
        eventually("no place", || async { Some(deliver(&app, &event, SECRETS[0]).await).filter(|answer| answer.status == 503) }).await;
    assert_eq!((refused.string("code").as_str(), refused.header("retry-after")), ("unavailable", "1"));
    post(&app.public, &event).await.expect(400);
    client.get("/v1/balance").await.expect(200);
    drop(slow);
    eventually("a place", || async { (deliver(&app, &event, SECRETS[0]).await.status == 200).then_some(()) }).await;
    assert_eq!(app.count("select count(*) from stripe_events").await, 1);
}

/// [B-9]
#[tokio::test]
async fn an_event_of_live_mode_is_refused_in_test_mode() {
    let app = with_webhooks().await;
    let body = stripe_event("evt_1", "x").replace("\"livemode\":false", "\"livemode\":true");
    deliver(&app, &body, SECRETS[0]).await.expect(400);
    assert_eq!(app.count("select count(*) from stripe_events").await, 0);
}

/// [B-9] An endpoint that was made with `connect` gets events of other accounts. They are acknowledged, or Stripe would come again, and
/// have no effect, not even where what they are about is called like something of ours.
#[tokio::test]
async fn an_event_of_a_connected_account_is_acknowledged_and_has_no_effect() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let news = shop.news();
    for mut event in news.clone() {
        event["id"] = json!(format!("{}_theirs", event["id"].as_str().unwrap()));
        event["account"] = json!("acct_theirs");
        shop.deliver(&event).await;
    }
    let ignored = "select count(*) from stripe_events where state = 'ignored' and handled_at is not null and attempts = 0";
    assert_eq!(shop.app.count(ignored).await, i64::try_from(news.len()).unwrap());
    assert_eq!(shop.app.balance(&client).await, (0, 0));
    for mut event in news {
        event["account"] = json!(null);
        shop.deliver(&event).await;
    }
    shop.handled().await;
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
}

/// [B-10] [B-12] [B-15]
#[tokio::test]
async fn an_event_delivered_64_times_at_once_is_stored_and_worked_through_once() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let news = shop.news();
    let paid = news.iter().find(|event| event["type"] == "checkout.session.completed").unwrap();
    join_all((0..64).map(|_| shop.deliver(paid))).await;
    eventually("the event's end", || async {
        (shop.app.count("select count(*) from stripe_events where state = 'handled' and attempts = 1").await == 1).then_some(())
    })
    .await;
    shop.deliver(paid).await;
    assert_eq!(shop.app.count("select count(*) from stripe_events").await, 1);
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
}

/// [B-20]
#[tokio::test]
async fn an_unknown_kind_of_event_is_stored_and_ignored() {
    let app = with_webhooks().await;
    deliver(&app, &stripe_event("evt_1", "moon.landed"), SECRETS[0]).await.expect(200);
    eventually("the event's end", || async {
        (app.count("select count(*) from stripe_events where state = 'ignored'").await == 1).then_some(())
    })
    .await;
}

/// [B-13]
#[tokio::test]
async fn while_the_database_is_away_stripe_is_told_to_come_again() {
    let app = App::with(|config| {
        config.stripe.webhook_secrets = CommaList(vec![SECRETS[0].to_owned().into()]);
        config.postgres.url = "postgres://billing_app@127.0.0.1:1/billing".into();
    })
    .await;
    let answer = deliver(&app, &stripe_event("evt_1", "x"), SECRETS[0]).await.expect(503);
    assert_eq!(answer.header("retry-after"), "1");
}

/// auth-service tells of an organization.
async fn founded(app: &App, organization: OrganizationId, name: &str, email: &str) {
    let payload = json!({"organization_id": organization, "name": name, "owner_id": "usr_0197f0a0000070008000000000000001",
        "billing_email": email, "created_at": app.clock.now()})
    .to_string();
    let fields = [("id", "evt-1"), ("kind", "organization.created"), ("payload", payload.as_str()), ("traceparent", "")];
    chassis::streams::publish(&app.redis.redis, "trivet:events:auth", &fields, None).await.unwrap();
}

/// The next request to Stripe of a kind fails so, before it has an effect.
fn fails_once(shop: &Shop, kind: FaultKind, method: &str, path: &str) {
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(kind, method, path)]);
}

/// [B-25] Nor when Stripe fails.
#[tokio::test]
async fn neither_secrets_nor_payloads_are_in_a_log_line() {
    // Looks the same in a form as in JSON.
    const CANARY: &str = "canary-of-the-log";
    let logs = testkit::logs::Logs::capture();
    let shop = Shop::with(|config| config.webhooks_to_private = true).await;
    let (app, (organization, client)) = (&shop.app, shop.customer());

    fails_once(&shop, FaultKind::RateLimited, "POST", "/v1/customers");
    founded(app, organization, CANARY, &format!("{CANARY}@example.com")).await;
    eventually("the customer's first try", || async { shop.stripe.knobs().faults.is_empty().then_some(()) }).await;
    eventually("the customer", || async {
        shop.pass(std::time::Duration::from_secs(10));
        (app.count("select count(*) from stripe_customers where customer_id is not null").await == 1).then_some(())
    })
    .await;

    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let news = shop.news();
    let of_canary = news.iter().find(|event| event.to_string().contains(CANARY)).unwrap();
    deliver(app, &of_canary.to_string(), "whsec_canary").await.expect(400);
    fails_once(&shop, FaultKind::ErrorBeforeEffect, "GET", "/v1/checkout/sessions/");
    for event in &news {
        shop.deliver(event).await;
    }
    shop.handled_in_time().await;
    assert_eq!(app.balance(&client).await, (10_000_000, 0));

    let (url, received) = receiver(0).await;
    let endpoint = client.post("/v1/webhook-endpoints", &json!({"url": url})).await.expect(201);
    let path = format!("/v1/webhook-endpoints/{}/rotate-secret", endpoint.string("id"));
    let rotated = client.post(&path, &json!({})).await.expect(200);
    write(app, organization, 1).await;
    eventually("the message", || async { (received.lock().unwrap().len() == 1).then_some(()) }).await;

    let text = logs.text();
    for line in [
        "/stripe/webhooks",
        "GET /checkout/sessions/",
        "Stripe did not make a customer; it will be tried again",
        "an event of Stripe failed and will be tried again",
    ] {
        assert!(text.contains(line), "{line:?} was not logged");
    }
    let [first, second] = [endpoint, rotated].map(|answer| answer.string("secret").trim_start_matches("whsec_").to_owned());
    for secret in [CANARY, "sk_test_shop", "whsec_shop", "whsec_canary", &first, &second] {
        let told = text.lines().find(|line| line.contains(secret));
        assert_eq!(told, None, "{secret} is in the log");
    }
}

/// [B-63] [B-68] [B13]
#[tokio::test]
async fn a_stripe_customer_is_made_once_with_a_stored_key_also_when_the_first_answer_is_lost() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let calls = seen.clone();
    let stripe = axum::Router::new().route(
        "/v1/customers",
        axum::routing::post(move |headers: http::HeaderMap| async move {
            let key = headers["idempotency-key"].to_str().unwrap().to_owned();
            calls.lock().unwrap().push(key);
            if calls.lock().unwrap().len() == 1 {
                return Err(http::StatusCode::INTERNAL_SERVER_ERROR);
            }
            Ok(axum::Json(json!({"id": "cus_1", "object": "customer", "created": 1, "livemode": false, "metadata": {}, "description": null, "email": null,
                "balance": 0, "default_source": null, "shipping": null, "invoice_settings": {"custom_fields": null, "default_payment_method": null, "footer": null, "rendering_options": null}})))
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, stripe).await });
    let app = App::with(|config| {
        config.stripe.secret_key = Some("sk_test_x".to_owned().into());
        config.stripe.api_base = base;
    })
    .await;
    let (organization, client) = app.organization();
    for _ in 0..2 {
        founded(&app, organization, "Ada", "ada@example.com").await;
    }
    eventually("the first try", || async { (!seen.lock().unwrap().is_empty()).then_some(()) }).await;
    eventually("the customer", || async {
        app.turn.advance(std::time::Duration::from_secs(10));
        (app.count("select count(*) from stripe_customers where customer_id = 'cus_1'").await == 1).then_some(())
    })
    .await;
    let keys = seen.lock().unwrap().clone();
    assert_eq!(keys, vec![format!("customer-{organization}"); 2]);
    assert_eq!(app.balance(&client).await, (super::app::GRANT, 0));
}

/// [B-20] [B-22]
#[tokio::test]
async fn an_event_that_fails_holds_up_no_other_and_is_set_aside_until_it_is_replayed() {
    let shop = Shop::open().await;
    let (app, (_, client)) = (&shop.app, shop.customer());
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let news = shop.news();
    let bad = news.iter().find(|event| event["type"] == "checkout.session.completed").unwrap();
    let good = news.iter().find(|event| event["type"] == "payment_intent.succeeded").unwrap();
    let broken = Fault { count: 1000, ..Fault::next(FaultKind::ErrorBeforeEffect, "GET", "/v1/checkout/sessions/") };
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![broken]);
    shop.deliver(bad).await;
    let of_bad = "select attempts::bigint from stripe_events where kind = 'checkout.session.completed'";
    eventually("the first try", || async { (app.count(of_bad).await == 1).then_some(()) }).await;
    shop.deliver(good).await;
    eventually("the other event", || async {
        (app.count("select count(*) from stripe_events where kind = 'payment_intent.succeeded' and state = 'ignored'").await == 1)
            .then_some(())
    })
    .await;
    assert_eq!(app.count(of_bad).await, 1, "no pause before the next try");
    let counted = app.metric("billing_stripe_events_parked_total").await;
    eventually("the end of its tries", || async {
        app.turn.advance(std::time::Duration::from_hours(2));
        handle_one(&app.state()).await.unwrap();
        (app.count("select count(*) from stripe_events where state = 'parked'").await == 1).then_some(())
    })
    .await;
    // Two tries may be under way when the last one fails.
    assert!((20..=21).contains(&app.count(of_bad).await));
    assert!(app.metric("billing_stripe_events_parked_total").await > counted, "nobody was told");
    let replay = async |event: &serde_json::Value| {
        let id = event["id"].as_str().unwrap();
        run(app, &["stripe", "replay", id, "--actor", "ada", "--reason", "mended"]).await
    };
    assert!(replay(good).await.is_err(), "it was not set aside");
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    replay(bad).await.unwrap();
    eventually("its effect", || async { (app.balance(&client).await == (10_000_000, 0)).then_some(()) }).await;
    assert!(replay(bad).await.is_err(), "it was replayed twice");
}

/// The event that a pack was paid, and who paid it: the first look at its page ends so.
async fn paid_and_first_look(fault: FaultKind) -> (Shop, TestClient) {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    let news = shop.news();
    let paid = news.iter().find(|event| event["type"] == "checkout.session.completed").unwrap();
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault::next(fault, "GET", "/v1/checkout/sessions/")]);
    shop.deliver(paid).await;
    eventually("Stripe is asked", || async { shop.stripe.knobs().faults.is_empty().then_some(()) }).await;
    (shop, client)
}

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

/// [B-15] A call of Stripe's may take twenty seconds, and whoever waits for one works on the event: it would be worked on twice.
#[tokio::test]
async fn an_event_that_was_taken_is_nobody_elses_for_longer_than_stripe_may_take_and_somebodys_after_that() {
    let (shop, client) = paid_and_first_look(FaultKind::TimeoutAfterEffect).await;
    let (app, state) = (&shop.app, shop.app.state());
    for second in 0..25 {
        assert!(!handle_one(&state).await.unwrap(), "it was taken again after {second} seconds");
        assert_eq!(app.count("select attempts::bigint from stripe_events").await, 1, "it was taken again after {second} seconds");
        app.turn.advance(SECOND);
    }
    // A quarter more, as after every pause.
    app.turn.advance(7 * SECOND);
    eventually("its effect", || async {
        (app.count("select count(*) from stripe_events where state = 'handled' and attempts = 2").await == 1).then_some(())
    })
    .await;
    assert_eq!(app.balance(&client).await, (10_000_000, 0));
}

/// [B-22] Nobody works on it any more: it waits for its own pause, and not for the longer one of an event that somebody took.
#[tokio::test]
async fn an_event_that_failed_comes_again_sooner_than_one_that_was_taken() {
    let (shop, client) = paid_and_first_look(FaultKind::ErrorBeforeEffect).await;
    let app = &shop.app;
    let soon = "select count(*) from stripe_events where attempts = 1 and next_attempt_at between received_at + interval '1 second' and received_at + interval '2 seconds'";
    eventually("its pause", || async { (app.count(soon).await == 1).then_some(()) }).await;
    app.turn.advance(2 * SECOND);
    eventually("its effect", || async {
        (app.count("select count(*) from stripe_events where state = 'handled' and attempts = 2").await == 1).then_some(())
    })
    .await;
    assert_eq!(app.balance(&client).await, (10_000_000, 0));
}
