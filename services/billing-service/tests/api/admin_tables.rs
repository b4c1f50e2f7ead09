//! What operators read and compare by HTTP: rate cards, usage of everybody, our books beside Stripe's [B-78].

use std::time::Duration;

use billing_service::admin::{SCOPE_READ, SCOPE_WRITE};
use serde_json::{Value, json};
use testkit::http::TestClient;

use super::app::App;
use super::shop::Shop;

fn by() -> Value {
    json!({"actor": "grace", "reason": "a good one"})
}

fn reader(app: &App) -> TestClient {
    app.service(SCOPE_READ)
}

#[tokio::test]
async fn cards_are_shown_and_those_that_are_valid_are_exported_as_the_terminal_prints_them() {
    let app = App::start().await;
    let reader = reader(&app);
    let yaml = reader.get("/v1/admin/rates").await.expect(200);
    assert!(yaml.header("content-type").starts_with("application/yaml"));
    assert!(yaml.text.starts_with("currency: USD\ncards:\n") && yaml.text.contains("model: \"sim-large\""), "{}", yaml.text);
    let console = app.service(&format!("{SCOPE_READ} {SCOPE_WRITE}"));
    let same = console.post("/v1/admin/rates/imports", &json!({"list": yaml.text})).await.expect(200).json;
    assert_eq!(same["changes"], json!([]), "nothing is another");
    let shown = reader.get("/v1/admin/rates/models/sim-large").await.expect(200).json;
    assert!(shown["data"][0].as_str().unwrap().contains("for everybody"), "{shown}");
    reader.get("/v1/admin/rates/models/nothing").await.expect(404);
    reader.get("/v1/admin/rates?at=yesterday").await.expect(400);
}

#[tokio::test]
async fn usage_of_everybody_is_exported_with_our_cost_and_compared_with_its_sums() {
    let app = App::start().await;
    let (ada, eve) = (app.organization(), app.organization());
    for (organization, _) in [&ada, &eve] {
        let hold = app.hold(*organization, 0, 100).await;
        app.settle(&hold, &app.usage(0, 100)).await.expect(200);
    }
    let reader = reader(&app);
    let rows = async |of: &str| {
        let path = format!("/v1/admin/usage?format=csv&from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z{of}");
        reader.get(&path).await.expect(200).text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = rows("").await;
    assert_eq!((all.len(), all[0].contains("cost_micros")), (3, true));
    let one = rows(&format!("&organization_id={}", ada.0)).await;
    assert_eq!((one.len(), one[0].contains("cost_micros"), one[1].contains(&ada.0.to_string())), (2, false, true));
    let compared = reader.get("/v1/admin/usage/verification").await.expect(200).json;
    assert_eq!(compared, json!({"clean": true, "differences": []}));
    testkit::eventually("the sums", || async {
        (app.count("select count(*) from usage_rollups where grain = 'day'").await == 2).then_some(())
    })
    .await;
    app.as_owner("update usage_rollups set price_micros = price_micros + 1 where grain = 'day'").await;
    let compared = reader.get("/v1/admin/usage/verification").await.expect(200).json;
    assert_eq!((&compared["clean"], compared["differences"].as_array().unwrap().len()), (&json!(false), 2), "{compared}");
}

/// [B-75] [B-78]
#[tokio::test]
async fn our_books_are_compared_with_stripes_and_mended_by_http_too_with_who_and_why() {
    let shop = Shop::open().await;
    let (ada, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    // Its events never come.
    drop(shop.news());
    let (reader, console) = (reader(&shop.app), shop.app.service(&format!("{SCOPE_READ} {SCOPE_WRITE}")));
    let path = "/v1/admin/stripe/reconcile";
    reader.post(path, &json!({})).await.expect(403);
    console.post(path, &json!({"grace_seconds": 86_401})).await.expect(422);
    for (grace, is_clean) in [(json!({}), true), (json!({"grace_seconds": 0}), false)] {
        let young = console.post(path, &grace).await.expect(200).json;
        assert_eq!(young["clean"], is_clean, "{young}");
    }
    shop.pass(Duration::from_mins(20));
    let found = console.post(path, &json!({})).await.expect(200).json;
    let missing = found["differences"].as_array().unwrap().iter().find(|one| one["kind"] == "payment_missing").unwrap();
    assert_eq!((&found["clean"], &missing["organization_id"]), (&json!(false), &json!(ada)));
    console.post(path, &json!({"repair": ["all"]})).await.expect(422);
    assert_eq!(shop.app.count("select count(*) from stripe_payments").await, 0, "nobody decided that");
    let object = missing["object"].as_str().unwrap();
    let keyed = console.header("idempotency-key", "r1");
    for repairs in [json!([{"object": object, "outcome": "looked at again"}]), json!([])] {
        let mended = keyed.post(path, &json!({"by": by(), "repair": [object]})).await.expect(200).json;
        assert_eq!((&mended["clean"], &mended["repairs"]), (&json!(true), &repairs), "{mended}");
    }
    assert_eq!(shop.app.count("select count(*) from stripe_payments").await, 1);
    let logged = "select count(*) from audit_log where action = 'stripe.repair' and actor like 'grace via %'";
    assert_eq!(shop.app.count(logged).await, 1);
    let unset = App::start().await;
    unset.service(&format!("{SCOPE_READ} {SCOPE_WRITE}")).post(path, &json!({})).await.expect(501);
    shop.app.assert_clean().await;
}
