//! What goes to Stripe and comes from it, whatever Stripe does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use billing_service::stripe::signature::sign;
use chassis::SecretString;
use chassis::config::CommaList;
use http::HeaderMap;
use identity::OrganizationId;
use serde_json::{Value, json};
use sqlx::{Executor, PgPool};
use stripe_client_core::VERSION;
use testkit::eventually;
use testkit::http::Answer;
use testkit::mutate::Mutator;

use super::app::App;

const SECRET: &str = "whsec_proof";

/// The service with a webhook secret, and Stripe behind this address.
async fn with_stripe(base: String) -> App {
    App::with(|config| {
        config.stripe.webhook_secrets = CommaList(vec![SECRET.to_owned().into()]);
        config.stripe.secret_key = Some("sk_test_x".to_owned().into());
        config.stripe.api_base = base;
    })
    .await
}

async fn deliver(app: &App, event: &Value) -> Answer {
    let body = event.to_string();
    let signature = sign(body.as_bytes(), &SecretString::from(SECRET.to_owned()), app.clock.now());
    app.public.header("stripe-signature", signature).send("POST".parse().unwrap(), "/stripe/webhooks", Some(body)).await
}

fn event(id: &str, object: &Value) -> Value {
    json!({"id": id, "object": "event", "type": "customer.updated", "livemode": false, "created": 1, "api_version": VERSION.as_str(),
           "data": {"object": object}})
}

/// As auth-service tells of it.
async fn signed_up(app: &App, organization: OrganizationId) {
    let payload = json!({"organization_id": organization, "name": "Ada", "owner_id": "usr_0197f0a0000070008000000000000001",
        "billing_email": "ada@example.com", "created_at": app.clock.now()})
    .to_string();
    let fields = [("id", "evt-1"), ("kind", "organization.created"), ("payload", payload.as_str()), ("traceparent", "")];
    chassis::streams::publish(&app.redis.redis, "trivet:events:auth", &fields, None).await.unwrap();
}

/// [B-11] A Stripe that takes calls and never answers.
#[tokio::test]
async fn an_event_is_acknowledged_while_stripe_hangs() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = with_stripe(format!("http://{}", listener.local_addr().unwrap())).await;
    let (organization, _) = app.organization();
    signed_up(&app, organization).await;
    // From here on a call to Stripe is under way and stays so.
    let (_call, _) = listener.accept().await.unwrap();
    for number in 0..20 {
        deliver(&app, &event(&format!("evt_{number}"), &json!({"id": "cus_1"}))).await.expect(200);
    }
    assert_eq!(app.count("select count(*) from stripe_events").await, 20);
}

/// [B-12] [B-15] Stripe's own list of events reaches back thirty days; so may a repetition.
#[tokio::test]
async fn a_repetition_a_month_later_is_still_known() {
    let app = with_stripe("http://127.0.0.1:9".into()).await;
    let mut told = event("evt_1", &json!({"id": "cus_1"}));
    told["type"] = "moon.landed".into();
    deliver(&app, &told).await.expect(200);
    let handled = "select count(*) from stripe_events where state = 'ignored' and attempts = 0";
    eventually("the event's end", || async { (app.count(handled).await == 1).then_some(()) }).await;
    app.turn.advance(Duration::from_hours(31 * 24));
    deliver(&app, &told).await.expect(200);
    billing_service::stripe::worker::handle_one(&app.state()).await.unwrap();
    assert_eq!((app.count("select count(*) from stripe_events").await, app.count(handled).await), (1, 1));
}

/// A Stripe that has nothing.
async fn empty_stripe() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new()).await });
    base
}

/// What a call of ours looked like, and whether the rows it is about could be locked by somebody else meanwhile.
type Seen = Arc<Mutex<Vec<(HeaderMap, bool)>>>;

/// A Stripe that answers with an id and nothing else, and that looks at our database while it is asked.
async fn watching_stripe(pool: Arc<Mutex<Option<PgPool>>>) -> (String, Seen) {
    let seen = Seen::default();
    let kept = seen.clone();
    let route = post(move |headers: HeaderMap| async move {
        let pool = pool.lock().unwrap().clone();
        let free = match pool {
            Some(pool) => {
                pool.execute("select from stripe_customers for update nowait; select from accounts for update nowait").await.is_ok()
            }
            None => false,
        };
        kept.lock().unwrap().push((headers, free));
        axum::Json(json!({"id": "cus_1"}))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/customers", route)).await });
    (base, seen)
}

/// [B-21] [B-82] [B28]
#[tokio::test]
async fn stripe_is_asked_in_the_pinned_version_with_no_row_locked_and_an_answer_with_an_id_alone_is_enough() {
    let pool = Arc::new(Mutex::new(None));
    let (base, seen) = watching_stripe(pool.clone()).await;
    let app = with_stripe(base).await;
    *pool.lock().unwrap() = Some(app.database.owner.clone());
    let (organization, _) = app.organization();
    signed_up(&app, organization).await;
    eventually("the customer", || async {
        (app.count("select count(*) from stripe_customers where customer_id = 'cus_1'").await == 1).then_some(())
    })
    .await;
    let [(headers, free)] = &seen.lock().unwrap()[..] else { panic!("one customer is one call") };
    assert_eq!(headers["stripe-version"], VERSION.as_str());
    assert!(headers.contains_key("idempotency-key"));
    assert!(free, "a row was locked while Stripe was asked");
}

/// [B-20] [B28] What async-stripe's types call required may be missing.
#[tokio::test]
async fn an_event_whose_object_lacks_every_field_is_stored_and_ends() {
    let app = with_stripe("http://127.0.0.1:9".into()).await;
    for (number, object) in [json!({}), json!(null), json!([]), json!({"metadata": null}), json!({"id": 7})].iter().enumerate() {
        deliver(&app, &event(&format!("evt_{number}"), object)).await.expect(200);
    }
    eventually("the end of all", || async {
        (app.count("select count(*) from stripe_events where state <> 'received'").await == 5).then_some(())
    })
    .await;
}

/// [B-20] Whatever is in an event: it is stored or refused by its field, never answered with a failure that would make Stripe come again
/// for three days.
#[tokio::test]
async fn an_event_that_is_nearly_one_is_stored_or_refused_and_never_fails() {
    let app = with_stripe(empty_stripe().await).await;
    let object = json!({"id": "cus_1", "metadata": {"organization_id": "org_0197f0a0000070008000000000000001"}, "n": [1, 2.5, "\u{e9}"]});
    let (first, second) =
        (event("evt_1", &object).to_string(), event("evt_2", &json!({})).to_string().replace("customer.updated", "moon.landed"));
    // What Stripe never deletes: this one does not have it either, so that all its tries fail.
    let mut paid = event("evt_3", &json!({"id": "in_1"}));
    paid["type"] = "invoice.paid".into();
    deliver(&app, &paid).await.expect(200);
    let third = paid.to_string();
    let samples = [first.as_bytes(), second.as_bytes(), third.as_bytes()];
    let mut mutator = Mutator::new(&samples, 1);
    let (mut stored, mut refused) = (0, 0);
    for _ in 0..400 {
        let body = String::from_utf8_lossy(&mutator.next_input()).into_owned();
        let signature = sign(body.as_bytes(), &SecretString::from(SECRET.to_owned()), app.clock.now());
        let answer =
            app.public.header("stripe-signature", signature).send("POST".parse().unwrap(), "/stripe/webhooks", Some(body.clone())).await;
        match answer.status.as_u16() {
            200 => stored += 1,
            400 => {
                refused += 1;
                assert!(answer.text.contains("field"), "{}", answer.text);
            }
            other => panic!("{other} for {body}"),
        }
    }
    assert!(stored > 20 && refused > 20, "{stored} stored, {refused} refused");
    let (state, waiting) = (app.state(), "select count(*) from stripe_events where state = 'received'");
    eventually("the end of all", || async {
        // Longer than any pause between two tries.
        app.turn.advance(Duration::from_hours(2));
        // Who takes an event at the same moment as the service may have to give way to it.
        while matches!(billing_service::stripe::worker::handle_one(&state).await, Ok(true)) {}
        (app.count(waiting).await == 0).then_some(())
    })
    .await;
    let aside = "select count(*) from stripe_events where event_id = 'evt_3' and state = 'parked' and attempts >= 20";
    assert_eq!(app.count(aside).await, 1, "what was paid was not looked for again and again, and people were not told of it");
}
