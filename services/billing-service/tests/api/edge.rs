//! What strangers and tenants get.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::app::{App, GRANT};
use super::shop::Shop;
use axum::Router;
use chassis::config::Millis;
use futures::future::join_all;
use identity::OrganizationId;
use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::{Answer, TestClient};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// [B-79]
#[tokio::test]
async fn an_organization_sees_only_its_own_money() {
    let app = App::start().await;
    let (ada, ada_client) = app.organization();
    let (_, eve_client) = app.organization();
    let reservation = app.reserve(&app.reservation(ada, app.request(), 10, 10)).await.expect(201).string("id");
    app.settle(&reservation, &app.usage(10, 10)).await.expect(200);
    let kinds = |answer: Answer| {
        answer.json["data"].as_array().unwrap().iter().map(|row| row["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ada_client.get("/v1/usage").await.expect(200).json["data"].as_array().unwrap().len(), 1);
    assert_eq!(kinds(ada_client.get("/v1/ledger/transactions").await.expect(200)), ["settlement", "reservation", "signup_grant"]);
    assert_eq!(eve_client.get("/v1/usage").await.expect(200).json["data"], json!([]));
    assert_eq!(app.balance(&eve_client).await, (GRANT, 0));
    assert_eq!(kinds(eve_client.get("/v1/ledger/transactions").await.expect(200)), ["signup_grant"]);
}

#[tokio::test]
async fn without_a_credential_everything_is_401_and_private_routes_are_not_public() {
    let app = App::start().await;
    for path in ["/v1/balance", "/v1/usage", "/v1/ledger/transactions"] {
        app.public.get(path).await.expect(401);
        app.public.bearer("tvk_test_nonsense").get(path).await.expect(401);
    }
    app.public.post("/internal/v1/reservations", &json!({})).await.expect(404);
    app.public.get("/metrics").await.expect(404);
}

#[tokio::test]
async fn a_look_at_the_balance_does_not_wait_for_a_settlement() {
    let app = App::with(|config| config.postgres.wait_timeout = Millis(Duration::from_millis(500))).await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    let mut settlement = app.database.owner.begin().await.unwrap();
    sqlx::query("select from accounts for update").execute(&mut *settlement).await.unwrap();
    assert_eq!(app.balance(&client).await, (GRANT, 0));
    settlement.rollback().await.unwrap();
}

#[tokio::test]
async fn the_list_of_usage_filters_and_refuses_what_it_does_not_understand() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    for _ in 0..3 {
        let reservation = app.hold(organization, 1, 1).await;
        app.settle(&reservation, &app.usage(1, 1)).await.expect(200);
    }
    assert_eq!(client.get("/v1/usage?model=sim-large").await.expect(200).json["data"].as_array().unwrap().len(), 3);
    assert_eq!(client.get("/v1/usage?model=other").await.expect(200).json["data"], json!([]));
    assert_eq!(client.get("/v1/usage?to=2029-01-01T00:00:00Z").await.expect(200).json["data"], json!([]));
    client.get("/v1/usage?cursor=AAAA").await.expect(400);
    client.get("/v1/usage?from=yesterday").await.expect(400);
}

/// Postgres has no instant before this one; ours go further back.
#[tokio::test]
async fn an_instant_that_the_database_does_not_have_is_refused_wherever_one_is_asked_for() {
    let app = App::start().await;
    let (_, client) = app.organization();
    let console = app.service("billing:admin:read margin:read");
    let (first, to) = ("-4713-11-24T00:00:00Z", "2030-01-02T00:00:00Z");
    client.get(&format!("/v1/balance?at={first}")).await.expect(200);
    client.get(&format!("/v1/usage?from={first}")).await.expect(200);
    client.get(&format!("/v1/usage/export?format=csv&from={first}&to={to}")).await.expect(200);
    for before in ["-10000-01-01T00:00:00Z", "-4713-11-23T23:59:59.999Z"] {
        for (client, path) in [
            (&client, format!("/v1/balance?at={before}")),
            (&client, format!("/v1/usage?from={before}")),
            (&client, format!("/v1/usage?to={before}")),
            (&client, format!("/v1/usage/export?format=csv&from={before}&to={to}")),
            (&client, "/v1/statements?from=-10000-01-01T00:00:00Z&to=-10000-01-02T00:00:00Z".to_owned()),
            (&console, format!("/v1/admin/margin?by=day&from={before}&to={to}")),
            (&console, format!("/v1/admin/ledger/journal?from={before}&to={to}")),
        ] {
            assert_eq!(client.get(&path).await.expect(400).json["code"], "invalid_instant", "{path}");
        }
    }
}

/// All rows of a list and how many pages they came in.
async fn all(client: &TestClient, path: &str) -> (Vec<Value>, usize) {
    let (mut rows, mut pages) = (Vec::new(), 0);
    let mut next = path.to_owned();
    loop {
        let page = client.get(&next).await.expect(200).json;
        rows.extend(page["data"].as_array().unwrap().iter().cloned());
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else { return (rows, pages) };
        next = format!("{path}?cursor={cursor}");
    }
}

/// [I-78] [B20]
#[tokio::test]
async fn the_list_of_usage_goes_on_by_its_cursor_to_the_last_row_also_where_many_ended_at_one_instant() {
    let app = App::start().await;
    let ((organization, client), (other, other_client)) = (app.organization(), app.organization());
    for organization in [organization, other] {
        let rows = "insert into usage_events (request_id, organization_id, model, provider, input_tokens, cached_input_tokens, cache_write_tokens,
              output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, currency, price_micros, cost_micros, counted_by,
              outcome, started_at, ended_at, recorded_at)
            select gen_random_uuid(), $1, 'sim-large', 'simulator', n, 0, 0, 0, 0, 0, 0, (select min(id) from rate_cards), 'USD', 0, 0, 'reported',
              'completed', now(), now() + n / 60 * interval '1 second', now() from generate_series(1, 250) n";
        sqlx::query(rows).bind(organization.uuid()).execute(&app.database.owner).await.unwrap();
    }
    let (rows, pages) = all(&client, "/v1/usage").await;
    assert_eq!((rows.len(), pages), (250, 3));
    let keys: Vec<(&str, &str)> = rows.iter().map(|row| (row["time"].as_str().unwrap(), row["request_id"].as_str().unwrap())).collect();
    assert!(keys.is_sorted_by(|one, next| one > next), "a row is twice in the list or in the wrong place");
    let cursor = client.get("/v1/usage").await.expect(200).string("next_cursor");
    client.get(&format!("/v1/ledger/transactions?cursor={cursor}")).await.expect(400);
    let foreign = other_client.get(&format!("/v1/usage?cursor={cursor}")).await.expect(200).json;
    let mine = |row: &Value| keys.iter().any(|(_, id)| row["request_id"] == *id);
    assert!(!foreign["data"].as_array().unwrap().iter().any(mine), "a cursor shows somebody else's rows");
}

/// [I-78]
#[tokio::test]
async fn the_list_of_transactions_goes_on_by_its_cursor_to_the_first_one() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    let mut transaction = app.database.owner.begin().await.unwrap();
    for statement in [
        "insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at)
         select gen_random_uuid(), 'gift', n::text, $1, now() from generate_series(1, 250) n",
        "insert into ledger_entries (transaction_id, account_id, amount_micros)
         select t.id, a.id, case a.kind when 'wallet' then 1 else -1 end from ledger_transactions t, accounts a
         where t.kind = 'gift' and (a.organization_id = $1 and a.kind = 'wallet' or a.organization_id is null and a.kind = 'promotion')",
        "insert into grants (id, organization_id, source, external_key, amount_micros, currency, priority, created_at)
         values (gen_random_uuid(), $1, 'promotion', 'gifts', 250, 'USD', 100, now())",
        "insert into grant_movements (grant_id, kind, external_key, amount_micros, occurred_at)
         select id, 'grant', 'gifts', 250, now() from grants where external_key = 'gifts' and organization_id = $1",
    ] {
        sqlx::query(statement).bind(organization.uuid()).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    let (rows, pages) = all(&client, "/v1/ledger/transactions").await;
    assert_eq!((rows.len(), pages), (251, 3));
    let gifts: Vec<usize> = rows[..250].iter().map(|row| row["external_key"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(gifts, (1..=250).rev().collect::<Vec<_>>());
    assert_eq!(rows[250]["kind"], "signup_grant");
    assert_eq!(rows[0]["entries"], json!([{"account": "wallet", "currency": "USD", "amount_micros": 1}]));
    app.assert_clean().await;
}

/// A Stripe that answers when the semaphore is closed, and not before; with how often it was asked, and its address.
async fn held_stripe() -> (Arc<AtomicUsize>, Arc<Semaphore>, String) {
    let (asked, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (count, wait) = (asked.clone(), held.clone());
    let router = Router::new().fallback(move || {
        let (count, wait) = (count.clone(), wait.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            assert!(wait.acquire().await.is_err(), "it answers before it is let go");
            axum::Json(json!({"id": "cus_1", "data": []}))
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (asked, held, url)
}

/// The organization is one of Stripe's customers.
async fn known_at_stripe(app: &App, organization: OrganizationId) {
    let row = "insert into stripe_customers (organization_id, email, name, idempotency_key, customer_id, next_attempt_at, created_at)
         values ($1, '', 'Ada', $2, $2, now(), now())";
    let customer = format!("cus_{organization}");
    sqlx::query(row).bind(organization.uuid()).bind(customer).execute(&app.database.owner).await.unwrap();
}

fn cards(client: &TestClient) -> JoinHandle<Answer> {
    let client = client.clone();
    tokio::spawn(async move { client.get("/v1/payment-methods").await })
}

/// [B-67] [B-79]
#[tokio::test]
async fn an_organization_that_asks_for_its_cards_again_and_again_takes_no_more_than_its_places_at_stripe() {
    let (asked, held, url) = held_stripe().await;
    let app = App::with(|config| (config.stripe.secret_key, config.stripe.api_base) = (Some("sk_test_x".to_owned().into()), url)).await;
    let ((eve, hers), (bob, his)) = (app.organization(), app.organization());
    known_at_stripe(&app, eve).await;
    known_at_stripe(&app, bob).await;
    let asked_of_it = async |times: usize| {
        eventually("it is asked", || async { (asked.load(Ordering::SeqCst) == times).then_some(()) }).await;
    };
    let mut answers: Vec<_> = (0..4).map(|_| cards(&hers)).collect();
    asked_of_it(4).await;
    for refused in join_all((0..20).map(|_| hers.get("/v1/payment-methods"))).await {
        assert_eq!(refused.expect(503).header("retry-after"), "1");
    }
    answers.push(cards(&his));
    asked_of_it(5).await;
    held.close();
    for answer in answers {
        answer.await.unwrap().expect(200);
    }
    hers.get("/v1/payment-methods").await.expect(200);
}

/// [B-67] More than would have their turns while anybody waits.
#[tokio::test]
async fn a_flood_of_looks_at_cards_does_not_keep_somebody_else_from_buying() {
    let shop = Shop::with(|config| config.stripe.requests_per_second = 20).await;
    let ((_, eve), (_, bob)) = (shop.customer(), shop.customer());
    shop.pack(&eve, "small").await.expect(201);
    let flood = join_all((0..128).map(|_| eve.get("/v1/payment-methods")));
    let (answers, page) = tokio::join!(flood, shop.pack(&bob, "small"));
    page.expect(201);
    let (refused, answered): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.status == 503);
    assert!(!refused.is_empty() && refused.iter().all(|answer| answer.header("retry-after") == "1"));
    assert!(!answered.is_empty());
    for answer in answered {
        answer.expect(200);
    }
}
