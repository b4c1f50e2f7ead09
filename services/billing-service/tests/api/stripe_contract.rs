//! Every request that we build for Stripe, taken down while all of it is used, and held equal to `data/stripe_requests.txt`; what stands
//! there is sent to stripe-mock, which knows Stripe's own specification, by `tools/stripe/contract_test.py`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use billing_service::error::Error;
use billing_service::intents::{self, Intent};
use billing_service::stripe::{gaps, meters, reconcile};
use chassis::in_transaction;
use http::{HeaderMap, Method, Uri};
use identity::Scopes;
use serde_json::json;
use sqlx::PgPool;
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;
use testkit::http::TestClient;
use url::form_urlencoded;

use super::replaced_customers;
use super::selling::sell;
use super::shop::{CATALOG, Shop};

/// What somebody who buys may do.
const BUYS: [&str; 2] = ["billing:read", "billing:write"];

const REQUESTS: &str = include_str!("../../data/stripe_requests.txt");
const MONTH: Duration = Duration::from_hours(32 * 24);

/// What went through.
#[derive(Clone, Default)]
struct Seen {
    lines: Arc<Mutex<BTreeSet<String>>>,
    /// Requests that somebody asked in the middle of a transaction.
    held: Arc<Mutex<BTreeSet<String>>>,
    /// The database, once there is one.
    database: Arc<OnceLock<PgPool>>,
}

impl Seen {
    /// Whether a transaction that was open when the request came is still open, and idle, while it has no answer: then it waits for that. One
    /// that is not ends by itself in a moment.
    async fn is_waited_for(&self) -> bool {
        let Some(database) = self.database.get() else { return false };
        let open = "select array_agg(pid::text || xact_start::text) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and state = 'idle in transaction'";
        let open = || async { sqlx::query_scalar::<_, Option<Vec<String>>>(open).fetch_one(database).await.unwrap().unwrap_or_default() };
        let mut waiting = open().await;
        for _ in 0..MANY_LOOKS {
            if waiting.is_empty() {
                return false;
            }
            let still = open().await;
            waiting.retain(|one| still.contains(one));
        }
        true
    }
}

/// More than a transaction that waits for nobody can last.
const MANY_LOOKS: usize = 2000;

/// Stands between us and the simulator, and takes down what goes through.
#[derive(Clone)]
struct Recorder {
    client: reqwest::Client,
    target: String,
    seen: Seen,
}

impl Recorder {
    /// In front of `target`; where it listens.
    fn start(target: String, seen: Seen) -> String {
        let recorder = Self { client: chassis::http::client::builder().build().unwrap(), target, seen };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(any(Self::pass)).with_state(recorder);
        tokio::spawn(async move { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await });
        url
    }

    async fn pass(State(recorder): State<Self>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
        let form = if method == Method::GET { uri.query().unwrap_or_default().as_bytes().to_vec() } else { body.to_vec() };
        let line = line(&method, uri.path(), &form);
        recorder.seen.lines.lock().unwrap().insert(line.clone());
        if recorder.seen.is_waited_for().await {
            recorder.seen.held.lock().unwrap().insert(line);
        }
        let mut request = recorder.client.request(method, format!("{}{uri}", recorder.target)).body(body);
        for name in ["authorization", "stripe-version", "idempotency-key", "content-type"] {
            if let Some(value) = headers.get(name) {
                request = request.header(name, value);
            }
        }
        // At the end the simulator goes first.
        let Ok(answer) = request.send().await else { return http::StatusCode::BAD_GATEWAY.into_response() };
        let (status, mut kept) = (answer.status(), HeaderMap::new());
        for name in ["retry-after", "stripe-should-retry", "idempotent-replayed"] {
            if let Some(value) = answer.headers().get(name) {
                kept.insert(name, value.clone());
            }
        }
        (status, kept, answer.bytes().await.unwrap()).into_response()
    }
}

/// A request without what differs from run to run: `POST /v1/refunds amount=1&metadata[operation]=text`.
fn line(method: &Method, path: &str, form: &[u8]) -> String {
    let path: Vec<String> = path.split('/').map(|part| value("", part)).collect();
    let mut fields: Vec<String> = form_urlencoded::parse(form).map(|(name, text)| format!("{name}={}", value(&name, &text))).collect();
    fields.sort();
    format!("{method} {} {}", path.join("/"), fields.join("&")).trim_end().to_owned()
}

fn value(name: &str, text: &str) -> String {
    let parts = ["metadata", "description", "client_reference_id", "product_data"];
    let free = matches!(name, "name" | "lookup_key" | "lookup_keys[0]") || parts.iter().any(|part| name.contains(part));
    if text.parse::<i64>().is_ok() {
        return if text.starts_with('-') { "-1".to_owned() } else { "1".to_owned() };
    }
    if free {
        return "text".to_owned();
    }
    if text.starts_with("trivet-") {
        return "trivet-1".to_owned();
    }
    // Ids: `cus_…`, `cs_test_…`; of the catalogue `plan_team`, and `all-v1`.
    let id = text
        .rsplit_once('_')
        .filter(|(_, end)| end.len() > 10 && end.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()));
    match id {
        Some((kind, _)) => format!("{kind}_1"),
        None if text.starts_with("catalog_") => "catalog_1".to_owned(),
        None => text.to_owned(),
    }
}

async fn change(client: &TestClient, change: serde_json::Value) {
    let id = client.get("/v1/subscription").await.expect(200).json["data"][0]["id"].clone();
    client.post("/v1/subscription/changes", &json!({"subscription_id": id, "change": change})).await.expect(200);
}

/// Everything that asks Stripe for something.
async fn use_all(shop: &Shop) {
    let (organization, client) = shop.app.organization_with(Scopes::known(BUYS));
    // A customer with an address, from the event of its organization.
    let payload = json!({"organization_id": organization, "name": "Ada", "owner_id": "usr_0197f0a0000070008000000000000001",
        "billing_email": "ada@example.com", "created_at": shop.app.clock.now()})
    .to_string();
    let fields = [("id", "evt-1"), ("kind", "organization.created"), ("payload", payload.as_str()), ("traceparent", "")];
    chassis::streams::publish(&shop.app.redis.redis, "trivet:events:auth", &fields, None).await.unwrap();
    eventually("the customer", || async {
        (shop.app.count("select count(*) from stripe_customers where customer_id is not null").await == 1).then_some(())
    })
    .await;
    // One that is made late is looked for first.
    shop.app
        .as_owner(
            "insert into stripe_customers (organization_id, email, name, idempotency_key, next_attempt_at, created_at)
        values ('0197f0a0-0000-7000-8000-0000000000aa', '', 'Eve', 'late', '2000-01-01', '2000-01-01')",
        )
        .await;
    eventually("the late customer", || async {
        (shop.app.count("select count(*) from stripe_customers where customer_id is not null").await == 2).then_some(())
    })
    .await;
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    // Another wish takes a page away; a trial takes a card.
    shop.plan(&client, "team").await.expect(201);
    shop.pay(&shop.plan(&client, "pro").await.expect(201));
    shop.settle().await;
    let (_, trial) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.plan(&trial, "pro").await.expect(201));
    shop.settle().await;
    client.post("/v1/portal-sessions", &json!({"return_url": "https://a.example.com"})).await.expect(201);
    client.get("/v1/payment-methods").await.expect(200);
    // A downgrade, seats with what is left of the month, and a refund of what came too late.
    let (team_id, team) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.plan(&team, "team").await.expect(201));
    shop.settle().await;
    change(&team, json!({"kind": "seats", "seats": 7})).await;
    shop.settle().await;
    let (_, late) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.plan(&late, "team").await.expect(201));
    let news = shop.news();
    shop.pass(Duration::from_hours(24));
    eventually("it has expired", || async {
        (shop.app.count("select count(*) from subscriptions where status = 'incomplete_expired'").await == 1).then_some(())
    })
    .await;
    for event in news {
        shop.deliver(&event).await;
    }
    shop.handled().await;
    shop.settle().await;
    // A dispute, a top-up that fails and is taken back.
    let payment =
        sqlx::query_scalar::<_, String>("select payment_intent_id from stripe_payments where sold and source = 'checkout' limit 1");
    let payment = payment.fetch_one(&shop.app.database.owner).await.unwrap();
    shop.stripe.open_dispute(&payment, None, "fraudulent").unwrap();
    shop.settle().await;
    let (id, poor) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.pack(&poor, "small").await.expect(201));
    shop.settle().await;
    let customer = shop.stripe_customer(id).await;
    let card = shop.dashboard("/v1/payment_methods/pm_card_chargeCustomerFail/attach", &[("customer", &customer)]).await;
    let fields = [("invoice_settings[default_payment_method]", card["id"].as_str().unwrap())];
    shop.dashboard(&format!("/v1/customers/{customer}"), &fields).await;
    let settings = json!({"enabled": true, "threshold_micros": 15_000_000, "amount_micros": 20_000_000, "monthly_cap_micros": 20_000_000});
    poor.send("PUT".parse().unwrap(), "/v1/auto-top-up", Some(settings.to_string())).await.expect(200);
    eventually("it is topped up", || async { (shop.app.count("select count(*) from top_ups").await == 1).then_some(()) }).await;
    shop.settle().await;
    // A credit note, and a payment for nothing of which the balance had paid a part.
    let paid = team.get("/v1/invoices").await.expect(200).json["data"][0]["id"].as_str().unwrap().to_owned();
    shop.dashboard("/v1/credit_notes", &[("invoice", &paid), ("amount", "100"), ("credit_amount", "100")]).await;
    long_draft(shop, &shop.stripe_customer(team_id).await).await;
    let state = shop.app.state();
    let wish = Intent {
        kind: "balance.return",
        subject: "balance-pi_1".to_owned(),
        organization_id: Some(organization),
        idempotency_key: "balance.return-pi_1".to_owned(),
        payload: json!({"amount_minor": 300, "currency": "USD"}),
    };
    let wanted: Result<(), Error> = in_transaction!(state.pool, |transaction| { intents::want(&state, transaction, &wish).await });
    wanted.unwrap();
    shop.settle().await;
    // Tries whose key Stripe has forgotten look for what was done: an invoice that is half made, a refund, what is sold.
    shop.stripe.turn_knobs(|knobs| {
        knobs.faults = vec![Fault { count: 500, ..Fault::next(FaultKind::ErrorBeforeEffect, "POST", "/v1/invoiceitems") }];
    });
    shop.pass(MONTH);
    eventually("tries fail", || async { (shop.app.count("select count(*) from intents where last_status = 500").await > 0).then_some(()) })
        .await;
    shop.stripe.turn_knobs(|knobs| knobs.faults.clear());
    shop.app.as_owner("update intents set sent_at = null, attempts = 2, created_at = created_at - interval '2 days' where kind in ('payment.refund', 'balance.return', 'catalog.credit_pack', 'catalog.coupon')").await;
    shop.pass(Duration::from_hours(48));
    eventually("all is sent", || async {
        shop.pass(Duration::from_hours(1));
        shop.send().await;
        (shop.app.count("select count(*) from intents where sent_at is null").await == 0).then_some(())
    })
    .await;
    meter_usage(shop).await;
    let state = shop.app.state();
    let stripe = state.stripe.as_ref().unwrap();
    gaps::round(&state, stripe, 2).await.unwrap();
    reconcile::compare(&state, stripe, reconcile::GRACE).await.unwrap();
}

/// A draft of an invoice with more lines than come with it.
async fn long_draft(shop: &Shop, customer: &str) {
    for _ in 0..11 {
        shop.dashboard("/v1/invoiceitems", &[("customer", customer), ("currency", "usd"), ("amount", "5")]).await;
    }
    shop.dashboard("/v1/invoices", &[("customer", customer), ("pending_invoice_items_behavior", "include")]).await;
}

/// Reports of what was used, upwards and downwards, to a meter that is a sum and to one of which the last value stands; a report that is looked for
/// after a day, and sums that differ.
async fn meter_usage(shop: &Shop) {
    let (organization, client) = shop.app.organization_with(Scopes::all());
    shop.app.balance(&client).await;
    let now = shop.app.clock.now();
    for aggregation in ["sum", "max"] {
        super::metering::meter(&client, aggregation, &json!({})).await;
        let line = [
            "stripe",
            "meters",
            "add",
            aggregation,
            "--meter",
            aggregation,
            "--aggregation",
            aggregation,
            "--actor",
            "ada",
            "--reason",
            "a test",
        ];
        super::wallet::run(&shop.app, &line).await.unwrap();
    }
    let event = super::metering::event("1", now, &json!({"used": {"seconds": 5}}));
    super::metering::send(&client, &[event]).await.expect(200);
    let reported = async || {
        let state = shop.app.state();
        meters::plan::all(&state).await.unwrap();
        eventually("usage is reported", || async {
            meters::sender::flush(&state, state.stripe.as_ref().unwrap()).await.unwrap();
            let waits = shop.app.count("select count(*) from stripe_meter_reports where state = 'pending'").await;
            if waits > 0 {
                shop.pass(Duration::from_secs(10));
            }
            (waits == 0).then_some(())
        })
        .await;
    };
    shop.pass(Duration::from_hours(2));
    reported().await;
    let taken_back = "insert into meter_deltas (meter_id, hour, groups, events, amount) select meter_id, window_start, groups, 0, -2 from meter_rollups where grain = 'hour' union all
        select meter_id, hour, groups, 0, -2 from meter_deltas";
    shop.app.as_owner(taken_back).await;
    reported().await;
    shop.app.as_owner("update stripe_meter_reports set state = 'pending', sent_at = null, doubt_at = created_at - interval '2 days' where version = 2").await;
    reported().await;
    let customer = shop.stripe_customer(organization).await;
    let fields = [("event_name", "sum"), ("payload[stripe_customer_id]", customer.as_str()), ("payload[value]", "7")];
    shop.dashboard("/v1/billing/meter_events", &fields).await;
    shop.pass(Duration::from_hours(1));
}

/// With tax computed by Stripe, the fields for that go along: on a page, and on the invoice of a renewal.
async fn use_taxed(shop: &Shop) {
    let (_, client) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pack(&client, "small").await.expect(201);
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    shop.pass(MONTH);
    shop.renewed(1).await;
    let (_, trying) = shop.app.organization_with(Scopes::known(BUYS));
    shop.plan(&trying, "pro").await.expect(201);
}

/// Coupons of an amount, and of a share for some months; and a plan that is withdrawn.
async fn use_catalog(shop: &Shop) {
    let coupons = "  ten: {name: Ten off, amount_off: {USD: \"10.00\"}, duration: once}
  spring: {name: A fifth off for three months, percent_off: 20, duration: months, months: 3}\n";
    sell(&shop.app, &format!("{CATALOG}{coupons}")).await;
    shop.settle().await;
    let plain = CATALOG.find("  plain:").unwrap()..CATALOG.find("credit_packs:").unwrap();
    let mut withdrawn = CATALOG.to_owned();
    withdrawn.replace_range(plain, "");
    sell(&shop.app, &format!("{withdrawn}{coupons}")).await;
    shop.settle().await;
}

/// [B-63] [B-73] A request that is new or changed changes the file, and with it what is held against Stripe's specification. [B-82] And none
/// of them is asked in the middle of a transaction.
#[tokio::test]
async fn every_request_that_we_build_stands_in_the_file_that_is_held_against_stripes_specification() {
    let mut lines = BTreeSet::new();
    for part in ["all", "taxed", "catalog", "replaced"] {
        let seen = Seen::default();
        let shop = Shop::with(|config| {
            config.stripe.api_base = Recorder::start(config.stripe.api_base.clone(), seen.clone());
            config.stripe.automatic_tax = part == "taxed";
        })
        .await;
        // Who sees what others do.
        let superuser = shop.app.database.owner.connect_options().as_ref().clone().username("postgres");
        seen.database.set(PgPool::connect_lazy_with(superuser)).unwrap();
        shop.settle().await;
        match part {
            "taxed" => use_taxed(&shop).await,
            "catalog" => use_catalog(&shop).await,
            "replaced" => replaced_customers::with_an_open_invoice(&shop).await,
            _ => use_all(&shop).await,
        }
        assert_eq!(*seen.held.lock().unwrap(), BTreeSet::new(), "a transaction waits for these");
        lines.append(&mut seen.lines.lock().unwrap());
    }
    // The second page of every list is asked for as the first, and after something; no list here has one.
    let lists = lines.iter().filter(|line| line.starts_with("GET ") && line.contains("limit=1") && !line.contains("starting_after"));
    lines.extend(lists.map(|line| format!("{line}&starting_after=obj_1")).collect::<Vec<_>>());
    let made = lines.iter().fold(String::new(), |text, line| text + line + "\n");
    if let Some(path) = std::env::var_os("WRITE_STRIPE_REQUESTS") {
        std::fs::write(path, &made).unwrap();
    }
    assert_eq!(made, REQUESTS, "write it anew: WRITE_STRIPE_REQUESTS=<absolute path of data/stripe_requests.txt>, and build again");
}
