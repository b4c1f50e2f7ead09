//! The verbs of operators by HTTP: closed without the scope, logged with who and why, done once under a key [B-51, B-78].

use billing_service::admin::{SCOPE_READ, SCOPE_WRITE};
use http::Method;
use identity::OrganizationId;
use serde_json::{Value, json};
use testkit::eventually::eventually;
use testkit::http::TestClient;

use super::app::{App, GRANT};
use super::catalog::example;

/// An operator's console.
fn console(app: &App) -> TestClient {
    app.service(&format!("{SCOPE_READ} {SCOPE_WRITE}"))
}

fn by() -> Value {
    json!({"actor": "grace", "reason": "a good one"})
}

async fn with_wallet(app: &App) -> (OrganizationId, TestClient) {
    let (organization, client) = app.organization();
    app.balance(&client).await;
    (organization, client)
}

fn changes(organization: OrganizationId) -> String {
    format!("/v1/admin/wallets/{organization}/changes")
}

const READS: [&str; 16] = [
    "/v1/admin/status",
    "/v1/admin/audit",
    "/v1/admin/ledger/verification",
    "/v1/admin/ledger/journal?from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z",
    "/v1/admin/wallets/org_0197f0a0000070008000000000000001",
    "/v1/admin/budgets/org_0197f0a0000070008000000000000001",
    "/v1/admin/subscriptions/org_0197f0a0000070008000000000000001",
    "/v1/admin/margin?by=day&from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z",
    "/v1/admin/margin/alerts",
    "/v1/admin/stripe/meters",
    "/v1/admin/stripe/meter-reports/parked",
    "/v1/admin/rates",
    "/v1/admin/rates/models/sim-large",
    "/v1/admin/usage?format=csv&from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z",
    "/v1/admin/usage/verification",
    "/v1/admin/ledger/trial-balance",
];

/// [B-79] Neither customers nor services of ours that have other things to do.
#[tokio::test]
async fn nobody_gets_at_the_verbs_of_operators_without_their_scopes() {
    let app = App::start().await;
    let (organization, client) = with_wallet(&app).await;
    let writes = [
        (changes(organization), json!({"by": by(), "change": {"what": "adjust", "amount": 1}})),
        ("/v1/admin/usage/rebuild".to_owned(), by()),
        ("/v1/admin/stripe/replay".to_owned(), json!({"by": by(), "events": {"event_id": "evt_1"}})),
        ("/v1/admin/streams/replay".to_owned(), json!({"by": by(), "stream": "usage"})),
        ("/v1/admin/rates/imports".to_owned(), json!({"by": by(), "list": "{}"})),
        ("/v1/admin/catalog".to_owned(), json!({"by": by(), "catalog": "format: 1", "planned_on": "x"})),
        (
            "/v1/admin/stripe/meters".to_owned(),
            json!({"by": by(), "event_name": "seconds", "of": {"source": "chat_usage", "currency": "USD"}}),
        ),
        ("/v1/admin/stripe/meters/seconds/stop".to_owned(), json!({"by": by()})),
        ("/v1/admin/stripe/meter-reports/replay".to_owned(), json!({"by": by()})),
        ("/v1/admin/stripe/reconcile".to_owned(), json!({"by": by(), "repair": ["all"]})),
        ("/v1/admin/catalog/move".to_owned(), json!({"by": by(), "plan": "pro"})),
        (
            format!("/v1/admin/subscriptions/{organization}/changes"),
            json!({"by": by(), "subscription_id": "sub_0197f0a0000070008000000000000001", "change": {"kind": "cancel"}, "at_once": true}),
        ),
    ];
    let reader = app.service(SCOPE_READ);
    for path in READS {
        client.get(path).await.expect(404);
        app.private.get(path).await.expect(403);
    }
    for (path, body) in &writes {
        client.post(path, body).await.expect(404);
        app.gateway.post(path, body).await.expect(403);
        reader.post(path, body).await.expect(403);
    }
    assert_eq!(app.count("select count(*) from audit_log").await, 0);
}

/// [B-78]
#[tokio::test]
async fn a_wallet_is_changed_once_under_its_key_with_who_and_why_also_when_the_terminal_repeats_it() {
    let app = App::start().await;
    let (ada, client) = with_wallet(&app).await;
    let console = console(&app);
    let keyed = console.header("idempotency-key", "k1");
    let grant = json!({"by": by(), "change": {"what": "grant", "source": "promotion", "amount": 1000, "priority": 1,
        "expires_at": null, "models": ["sim-small"], "features": null}});
    let first = keyed.post(&changes(ada), &grant).await.expect(200);
    assert_eq!((first.string("action"), &first.json["after"]["wallet_micros"]), ("wallet.grant".to_owned(), &json!(GRANT + 1000)));
    let path = changes(ada);
    let races = futures::future::join_all((0..64).map(|_| keyed.post(&path, &grant))).await;
    for again in races {
        let again = again.expect(200);
        assert_eq!((again.header("idempotency-replayed"), &again.json), ("true", &first.json));
    }
    let a = ada.to_string();
    let terminal = ["wallet", "grant", &a, "--amount-micros", "1000", "--priority", "1", "--model", "sim-small"];
    let who = ["--actor", "ada", "--reason", "again", "--idempotency-key", "k1"];
    super::wallet::run(&app, &[&terminal[..], &who].concat()).await.unwrap();
    keyed.post(&changes(ada), &json!({"by": by(), "change": {"what": "adjust", "amount": 1}})).await.expect(422);
    assert_eq!(app.balance(&client).await.0, GRANT + 1000);
    let shown = console.get(&format!("/v1/admin/wallets/{ada}")).await.expect(200).json;
    assert_eq!((&shown["balances"]["wallet_micros"], &shown["lots"][0]["models"]), (&json!(GRANT + 1000), &json!(["sim-small"])));
    let lot = shown["lots"][0]["id"].clone();
    console.post(&changes(ada), &json!({"by": by(), "change": {"what": "revoke", "grant": lot}})).await.expect(200);
    let log = console.get(&format!("/v1/admin/audit?organization_id={ada}")).await.expect(200).json;
    let actions: Vec<&Value> = log["data"].as_array().unwrap().iter().map(|row| &row["action"]).collect();
    assert_eq!(actions, ["wallet.revoke", "wallet.grant"], "newest first, each once");
    assert_eq!((&log["data"][1]["actor"], &log["data"][1]["reason"]), (&json!("grace via chat-service"), &json!("a good one")));
    let last = log["data"][1]["id"].as_i64().unwrap();
    assert_eq!(console.get(&format!("/v1/admin/audit?before={last}")).await.expect(200).json["data"], json!([]));
    app.assert_clean().await;
}

/// [B-78]
#[tokio::test]
async fn what_is_refused_says_the_field_and_leaves_no_row() {
    let app = App::start().await;
    let (ada, client) = with_wallet(&app).await;
    let console = console(&app);
    let adjust = json!({"what": "adjust", "amount": 5});
    let cases = [
        (json!({"change": adjust}), 422, "by"),
        (json!({"by": {"actor": " ", "reason": "r"}, "change": adjust}), 422, "actor"),
        (json!({"by": {"actor": "a", "reason": ""}, "change": adjust}), 422, "reason"),
        (json!({"by": by(), "change": {"what": "adjust", "amount": 0}}), 422, "amount"),
        (json!({"by": by(), "change": {"what": "adjust", "amount": 1.5}}), 422, "change"),
        (json!({"by": by(), "change": {"what": "gift", "amount": 1}}), 422, "change"),
        (json!({"by": by(), "change": {"what": "adjust", "amount": 1, "more": 1}}), 422, "more"),
        (json!({"by": by(), "change": {"what": "transfer", "to": "org_0197f0a0000070008000000000000001", "amount": 1}}), 404, "not_found"),
    ];
    for (body, status, said) in cases {
        let refused = console.post(&changes(ada), &body).await.expect(status);
        assert!(refused.text.contains(said), "{body}: {}", refused.text);
    }
    let key = "x".repeat(256);
    console.header("idempotency-key", key).post(&changes(ada), &json!({"by": by(), "change": adjust})).await.expect(422);
    assert_eq!((app.balance(&client).await.0, app.count("select count(*) from audit_log").await), (GRANT, 0));
}

/// [B-31] [B-78]
#[tokio::test]
async fn a_price_list_is_told_without_a_decision_and_imported_once_with_one_and_a_row_in_the_same_transaction() {
    let app = App::start().await;
    let console = console(&app);
    let path = "/v1/admin/rates/imports";
    let list = r#"{"new": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}"#;
    let cards = "select count(*) from rate_cards where model = 'new'";
    let told = console.post(path, &json!({"list": list})).await.expect(200);
    assert_eq!((&told.json["imported"], told.json["changes"].as_array().unwrap().len()), (&json!(false), 1));
    assert_eq!((app.count(cards).await, app.count("select count(*) from audit_log").await), (0, 0), "what was only told was done");
    let keyed = console.header("idempotency-key", "list");
    let body = json!({"by": by(), "list": list});
    let first = keyed.post(path, &body).await.expect(200);
    assert_eq!(first.json["changes"], told.json["changes"]);
    assert_eq!(keyed.post(path, &body).await.expect(200).json, first.json, "repeated, it says what it did");
    keyed.post(path, &json!({"by": by(), "list": list, "markup_percent": 7})).await.expect(422);
    let refused = console.post(path, &json!({"by": by(), "list": list.replace("1e-6", "-1")})).await.expect(422);
    assert!(refused.text.contains("must not be negative"), "{}", refused.text);
    console.post(path, &json!({"by": by(), "list": list, "from": "2029-01-01T00:00:00Z"})).await.expect(422);
    let logged = console.get("/v1/admin/audit?action=rates.import").await.expect(200).json;
    assert_eq!((app.count(cards).await, logged["data"].as_array().unwrap().len()), (1, 1));
    assert_eq!(logged["data"][0]["after"]["changes"], told.json["changes"]);
    // If the row cannot be written, nothing is imported.
    app.as_owner("revoke insert on audit_log from billing_app").await;
    console.post(path, &json!({"by": by(), "list": list.replace("new", "other")})).await.expect(500);
    assert_eq!(app.count("select count(*) from rate_cards where model = 'other'").await, 0);
}

#[tokio::test]
async fn a_catalogue_is_planned_then_applied_on_what_was_planned_and_logged() {
    let app = App::start().await;
    let (_, client) = app.organization();
    let console = console(&app);
    let file = example();
    let planned = console.post("/v1/admin/catalog", &json!({"catalog": file})).await.expect(200);
    assert!(planned.string("changes").contains("plan pro") && planned.json["applied"] == json!(false), "{}", planned.text);
    console.post("/v1/admin/catalog", &json!({"catalog": file, "by": by()})).await.expect(422);
    console.post("/v1/admin/catalog", &json!({"catalog": file, "by": by(), "planned_on": "x"})).await.expect(409);
    let faulty = console.post("/v1/admin/catalog", &json!({"catalog": "format: 2"})).await.expect(422);
    assert!(faulty.text.contains("catalog.format"), "{}", faulty.text);
    let body = json!({"catalog": file, "by": by(), "planned_on": planned.json["planned_on"]});
    let keyed = console.header("idempotency-key", "catalog");
    let applied = keyed.post("/v1/admin/catalog", &body).await.expect(200);
    assert_eq!((&applied.json["version"], &applied.json["changes"]), (&json!(1), &planned.json["changes"]));
    assert_eq!(keyed.post("/v1/admin/catalog", &body).await.expect(200).json, applied.json);
    assert_eq!(client.get("/v1/plans").await.expect(200).json["plans"].as_array().unwrap().len(), 3);
    let logged = console.get("/v1/admin/audit?action=catalog.apply").await.expect(200).json;
    assert_eq!((logged["data"].as_array().unwrap().len(), &logged["data"][0]["reason"]), (1, &json!("a good one")));
}

#[tokio::test]
async fn the_ledger_is_verified_and_its_journal_read_and_rollups_are_made_anew_and_logged() {
    let app = App::start().await;
    let (ada, client) = with_wallet(&app).await;
    let console = console(&app);
    let hold = app.hold(ada, 10, 10).await;
    app.settle(&hold, &app.usage(10, 10)).await.expect(200);
    billing_service::ledger::seal::seal(&app.state()).await.unwrap();
    let clean = console.get("/v1/admin/ledger/verification").await.expect(200).json;
    assert_eq!((&clean["clean"], &clean["lines"]), (&json!(true), &json!([])));
    let head = clean["head"].as_str().unwrap();
    assert_eq!(console.get(&format!("/v1/admin/ledger/verification?expect={head}")).await.expect(200).json["clean"], true);
    let other = "0".repeat(64);
    assert_eq!(console.get(&format!("/v1/admin/ledger/verification?expect={other}")).await.expect(200).json["clean"], false);
    console.get("/v1/admin/ledger/verification?expect=x").await.expect(422);
    let journal = console.get(READS[3]).await.expect(200);
    assert_eq!(journal.header("content-type"), "text/csv; charset=utf-8");
    assert!(journal.text.lines().count() > 4 && journal.text.contains(",settlement,"), "{}", journal.text);
    app.as_owner("update usage_rollups set price_micros = price_micros + 1; update usage_deltas set price_micros = price_micros + 1").await;
    assert_eq!(console.post("/v1/admin/usage/rebuild", &by()).await.expect(200).json["rebuilt"], true);
    assert_eq!(billing_service::rollups::differences(&app.database.pool).await.unwrap(), Vec::<String>::new());
    assert_eq!(app.count("select count(*) from audit_log where action = 'usage.rebuild' and actor like 'grace via %'").await, 1);
    app.as_owner("update accounts set balance_micros = balance_micros + 1 where kind = 'promotion'").await;
    let torn = console.get("/v1/admin/ledger/verification").await.expect(200).json;
    assert_eq!((&torn["clean"], torn["lines"].as_array().unwrap().len()), (&json!(false), 1));
    client.send(Method::GET, "/v1/balance", None).await.expect(200);
}

/// [B-78] A customer decides this, so the row says which key or person.
#[tokio::test]
async fn a_meter_is_made_with_a_row_that_names_who_made_it_and_budgets_of_an_organization_are_listed() {
    let app = App::start().await;
    let (ada, _) = app.organization();
    let client = app.key_of(ada, identity::Scopes::all());
    client.post("/v1/meters", &json!({"name": "calls", "event_type": "call", "aggregation": "count"})).await.expect(201);
    client.post("/v1/meters", &json!({"name": "calls", "event_type": "other", "aggregation": "count"})).await.expect(409);
    let budget = json!({"name": "all", "scope": "organization", "period": "month", "limit_micros": 3000, "currency": "USD"});
    let made = client.post("/v1/budgets", &budget).await.expect(201).json;
    let console = console(&app);
    let logged = console.get("/v1/admin/audit?action=meter.create").await.expect(200).json;
    let row = &logged["data"][0];
    assert_eq!((logged["data"].as_array().unwrap().len(), &row["request"]["name"]), (1, &json!("calls")));
    assert!(row["actor"].as_str().unwrap().starts_with("key_") && row["organization_id"] == json!(ada.uuid()), "{row}");
    assert_eq!(console.get(&format!("/v1/admin/budgets/{ada}")).await.expect(200).json["data"], json!([made]));
}

/// [B-22] One, or those of a time, once under a key, and on record.
#[tokio::test]
async fn what_was_set_aside_is_brought_back_by_its_id_or_by_a_time_and_logged() {
    let app = App::start().await;
    let console = console(&app);
    // Of a kind that is none of ours: handled as such at once, or it would be set aside again.
    app.as_owner(
        "insert into stripe_events (event_id, kind, livemode, payload, state, attempts, next_attempt_at, created_at, received_at)
         select 'evt_' || n, 'none.of.ours', false, '{}', 'parked', 20, '2040-01-01', '2030-01-01', timestamptz '2030-01-01 00:00Z' + n * interval '1 day'
         from generate_series(1, 5) n",
    )
    .await;
    let path = "/v1/admin/stripe/replay";
    console.post(path, &json!({"by": by(), "events": {}})).await.expect(422);
    console.post(path, &json!({"by": by(), "events": {"from": "2030-01-01T00:00:00Z"}})).await.expect(422);
    console.post(path, &json!({"by": by()})).await.expect(422);
    console.post(path, &json!({"by": by(), "events": {"event_id": "evt_1"}, "intents": {}})).await.expect(422);
    console.post(path, &json!({"by": by(), "intents": {"to": "2030-01-01T00:00:00Z"}})).await.expect(422);
    app.as_owner(
        "insert into intents (id, kind, subject, idempotency_key, payload, next_attempt_at, created_at, refusals, parked_at)
         select ('00000000-0000-4000-8000-00000000000' || n)::uuid, 'x', 'x', 'key ' || n, '{}', '2040-01-01', '2030-01-01', 26,
           timestamptz '2030-01-01 00:00Z' + n * interval '1 day' from generate_series(1, 3) n",
    )
    .await;
    let one = json!({"by": by(), "intents": {"intent_id": "00000000-0000-4000-8000-000000000003"}});
    let answer = console.header("idempotency-key", "intent").post(path, &one).await.expect(200).json;
    assert_eq!(answer["intent_ids"], json!(["00000000-0000-4000-8000-000000000003"]));
    assert_eq!(console.header("idempotency-key", "intent").post(path, &one).await.expect(200).json, answer);
    let time = json!({"by": by(), "intents": {"from": "2030-01-02T00:00:00Z", "to": "2030-01-03T00:00:00Z"}});
    assert_eq!(console.post(path, &time).await.expect(200).json["intent_ids"], json!(["00000000-0000-4000-8000-000000000001"]));
    assert_eq!(app.count("select count(*) from intents where parked_at is null and refusals = 0").await, 2);
    let keyed = console.header("idempotency-key", "replay");
    let time = json!({"by": by(), "events": {"from": "2030-01-02T00:00:00Z", "to": "2030-01-04T00:00:00Z"}});
    let first = keyed.post(path, &time).await.expect(200).json;
    let mut back: Vec<&str> = first["event_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    back.sort_unstable();
    assert_eq!(back, ["evt_1", "evt_2"], "half-open");
    eventually("both are handled", || async {
        (app.count("select count(*) from stripe_events where state = 'ignored'").await == 2).then_some(())
    })
    .await;
    assert_eq!(keyed.post(path, &time).await.expect(200).json, first);
    super::wallet::run(&app, &["stripe", "replay", "evt_4", "--actor", "grace", "--reason", "mended"]).await.unwrap();
    let none = super::wallet::run(&app, &["stripe", "replay", "evt_1", "--actor", "grace", "--reason", "mended"]).await.unwrap_err();
    assert!(none.to_string().contains("no such event was set aside"), "{none}");
    assert_eq!(app.count("select count(*) from stripe_events where state = 'parked'").await, 2);
    let dead = format!("{}:dead", contracts::events::AUTH_STREAM);
    let fields = [("kind", "nothing.known"), ("payload", "{}"), ("dead_reason", "x"), ("dead_id", "1-1")];
    chassis::streams::publish(&app.redis.redis, &dead, &fields, None).await.unwrap();
    let body = json!({"by": by(), "stream": "auth"});
    assert_eq!(console.post("/v1/admin/streams/replay", &body).await.expect(200).json["messages"], 1);
    assert_eq!(app.length(&dead).await, 0);
    super::wallet::run(&app, &["streams", "replay", "usage", "--actor", "grace", "--reason", "mended"]).await.unwrap();
    let log = console.get("/v1/admin/audit").await.expect(200).json;
    let actions: Vec<&Value> = log["data"].as_array().unwrap().iter().map(|row| &row["action"]).collect();
    assert_eq!(
        actions,
        ["streams.replay", "streams.replay", "stripe.replay", "stripe.replay", "stripe.replay_intents", "stripe.replay_intents"]
    );
}

/// [B-78] What the terminal changes is logged as what HTTP changes is, and without who and why it changes nothing.
#[tokio::test]
async fn the_terminal_has_the_same_verbs_with_the_same_log() {
    let app = App::start().await;
    let (ada, _) = with_wallet(&app).await;
    let a = ada.to_string();
    let folder = std::env::temp_dir().join(format!("trivet-{ada}"));
    std::fs::create_dir(&folder).unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let list = path("list.json", r#"{"new": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}"#);
    let catalog = path("catalog.yaml", &example());
    let planned = billing_service::catalog::apply::plan(&app.state(), &billing_service::catalog::parse(&example()).unwrap()).await.unwrap();
    let who = ["--actor", "grace", "--reason", "a good one"];
    let run = async |arguments: &[&str]| super::wallet::run(&app, arguments).await;
    let logged = async || app.count("select count(*) from audit_log where actor = 'grace' and reason = 'a good one'").await;
    run(&["rates", "import", &list, "--dry-run"]).await.unwrap();
    run(&["catalog", "plan", &catalog]).await.unwrap();
    for nameless in [
        vec!["rates", "import", &list],
        vec!["rates", "import", &list, "--actor", "grace"],
        vec!["rates", "import", &list, "--actor", "grace", "--reason", " "],
        vec!["usage", "rebuild"],
        vec!["catalog", "apply", &catalog, "--planned-on", &planned.stored, "--actor", "grace"],
    ] {
        assert!(run(&nameless).await.is_err(), "{nameless:?}");
    }
    let changed = "select (select count(*) from rate_cards where model = 'new') + (select count(*) from catalog_versions)";
    assert_eq!((logged().await, app.count(changed).await), (0, 0));
    run(&[&["rates", "import", &list][..], &who].concat()).await.unwrap();
    run(&[&["catalog", "apply", &catalog, "--planned-on", &planned.stored][..], &who].concat()).await.unwrap();
    run(&[&["usage", "rebuild"][..], &who].concat()).await.unwrap();
    assert_eq!((logged().await, app.count(changed).await), (3, 2));
    for reading in [vec!["audit"], vec!["budgets", &a], vec!["usage", "verify"], vec!["rates", "show", "new"]] {
        run(&reading).await.unwrap();
    }
    let period = ["--from", "2030-01-01T00:00:00Z", "--to", "2031-01-01T00:00:00Z"];
    run(&[&["margin", "--by", "day"][..], &period].concat()).await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

/// [B-66] [B-78]
#[tokio::test]
async fn what_is_reported_to_stripe_is_decided_by_http_too_once_under_a_key_and_on_record() {
    let app = App::start().await;
    let console = console(&app);
    let chat = json!({"by": by(), "event_name": "spent", "of": {"source": "chat_usage", "currency": "USD"}});
    for _ in 0..2 {
        console.header("idempotency-key", "m1").post("/v1/admin/stripe/meters", &chat).await.expect(201);
    }
    assert_eq!(console.post("/v1/admin/stripe/meters", &chat).await.expect(409).json["errors"][0]["field"], "event_name");
    for (field, wrong) in [
        ("currency", json!({"source": "chat_usage", "currency": "XXX"})),
        ("meter", json!({"source": "meter", "meter_name": "", "aggregation": "sum"})),
    ] {
        let body = json!({"by": by(), "event_name": "other", "of": wrong});
        assert_eq!(console.post("/v1/admin/stripe/meters", &body).await.expect(422).json["errors"][0]["field"], field);
    }
    let listed = console.get("/v1/admin/stripe/meters").await.expect(200).json;
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][0]["source"]), (1, &json!("chat_usage")));
    console.post("/v1/admin/stripe/meters/spent/stop", &json!({"by": {"actor": "grace", "reason": " "}})).await.expect(422);
    console.post("/v1/admin/stripe/meters/spent/stop", &json!({"by": by()})).await.expect(204);
    console.post("/v1/admin/stripe/meters/nothing/stop", &json!({"by": by()})).await.expect(404);
    assert!(console.get("/v1/admin/stripe/meters").await.json["data"][0]["ended_at"].is_string());
    assert_eq!(console.get("/v1/admin/stripe/meter-reports/parked").await.expect(200).json["data"], json!([]));
    assert_eq!(
        console.post("/v1/admin/stripe/meter-reports/replay", &json!({"by": by()})).await.expect(200).json["identifiers"],
        json!([])
    );
    let rows = "select count(*) from audit_log where action in ('stripe.meter.add', 'stripe.meter.stop') and actor like 'grace via %'";
    assert_eq!(app.count(rows).await, 2);
}
