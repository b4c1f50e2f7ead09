//! Keys, versions, errors, lists, expansion.

use reqwest::Method;
use stripe_simulator::{Options, Settings};

use super::client::{Shop, id};

#[tokio::test]
async fn only_test_keys_are_let_in_by_bearer_or_by_basic() {
    let shop = Shop::start().await;
    let url = format!("{}/v1/customers", shop.simulator.url);
    assert_eq!(shop.http.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(shop.http.get(&url).bearer_auth("sk_live_1").send().await.unwrap().status(), 401);
    assert_eq!(shop.http.get(&url).bearer_auth("rk_test_1").send().await.unwrap().status(), 200);
    assert_eq!(shop.http.get(&url).basic_auth("sk_test_1", Some("")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_is_more_than_fits_into_a_second_is_refused_as_stripe_does_and_may_come_again_under_its_key() {
    let settings = Settings { requests_per_second: Some(3), ..Settings::default() };
    let shop = Shop::with(Options { settings, ..Options::default() }).await;
    let ask = || shop.request(Method::POST, "customers", "").header("idempotency-key", "the key").send();
    for _ in 0..3 {
        assert_eq!(shop.try_get("customers").await.0, 200);
    }
    let refused = ask().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["stripe-rate-limited-reason"]), (429, &"global-rate".parse().unwrap()));
    let error: serde_json::Value = refused.json().await.unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["type"]), (&"rate_limit".into(), &"invalid_request_error".into()));
    assert_eq!(shop.try_get("customers").await.0, 429);
    shop.simulator.advance(1);
    let made = ask().await.unwrap();
    assert!(made.status() == 200 && !made.headers().contains_key("idempotent-replayed"));
    assert_eq!(shop.get("customers").await["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn each_answer_names_its_request_and_its_version() {
    let shop = Shop::start().await;
    let response = shop.request(Method::GET, "customers", "").header("stripe-version", "2026-04-22.dahlia").send().await.unwrap();
    assert!(response.headers()["request-id"].to_str().unwrap().starts_with("req_"));
    assert_eq!(response.headers()["stripe-version"], "2026-04-22.dahlia");
    let refused = shop.request(Method::GET, "customers", "").header("stripe-version", "yesterday").send().await.unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn errors_have_the_shape_and_the_codes_of_stripe() {
    let shop = Shop::start().await;
    let (status, unknown) = shop.try_post("customers", "name=x&surname=y").await;
    assert_eq!((status, &unknown["error"]["code"], &unknown["error"]["param"]), (400, &"parameter_unknown".into(), &"surname".into()));
    assert_eq!(unknown["error"]["type"], "invalid_request_error");
    assert_eq!(unknown["error"]["message"], "Received unknown parameter: surname");
    assert!(unknown["error"]["request_log_url"].as_str().unwrap().contains("/logs/req_"));
    let (_, nested) = shop.try_post("customers", "invoice_settings[nothing]=y").await;
    assert_eq!(nested["error"]["param"], "invoice_settings[nothing]");
    let (status, missing) = shop.try_post("products", "").await;
    assert_eq!((status, &missing["error"]["code"], &missing["error"]["param"]), (400, &"parameter_missing".into(), &"name".into()));
    let (status, absent) = shop.try_get("customers/cus_none").await;
    assert_eq!((status, &absent["error"]["code"]), (404, &"resource_missing".into()));
    assert_eq!(absent["error"]["message"], "No such customer: 'cus_none'");
    let (status, elsewhere) = shop.try_get("nothing").await;
    assert_eq!((status, &elsewhere["error"]["type"]), (404, &"invalid_request_error".into()));
    assert!(shop.simulator.events().is_empty(), "what is refused changes nothing");
}

#[tokio::test]
async fn a_request_that_is_refused_late_leaves_nothing_behind() {
    let shop = Shop::start().await;
    let form = "mode=payment&success_url=http://s.example&line_items[0][quantity]=1&line_items[0][price_data][currency]=usd\
                &line_items[0][price_data][unit_amount]=10&line_items[0][price_data][product_data][name]=x";
    assert_eq!(shop.try_post("checkout/sessions", form).await.1["error"]["code"], "amount_too_small");
    assert_eq!(shop.try_post("products", "name=x&expand[]=color").await.0, 400);
    assert!(shop.get("products").await["data"].as_array().unwrap().is_empty());
    assert!(shop.get("prices").await["data"].as_array().unwrap().is_empty());
    assert!(shop.simulator.events().is_empty());
}

#[tokio::test]
async fn lists_are_cut_by_cursors_in_both_directions() {
    let shop = Shop::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, shop.customer().await);
    }
    let names = |page: &serde_json::Value| page["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>();
    let first = shop.get("customers?limit=2").await;
    assert_eq!((names(&first), &first["has_more"], &first["url"]), (ids[..2].to_vec(), &true.into(), &"/v1/customers".into()));
    let second = shop.get(&format!("customers?limit=2&starting_after={}", ids[1])).await;
    assert_eq!((names(&second), &second["has_more"]), (ids[2..4].to_vec(), &true.into()));
    let last = shop.get(&format!("customers?limit=2&starting_after={}", ids[3])).await;
    assert_eq!((names(&last), &last["has_more"]), (ids[4..].to_vec(), &false.into()));
    let back = shop.get(&format!("customers?limit=2&ending_before={}", ids[3])).await;
    assert_eq!((names(&back), &back["has_more"]), (ids[1..3].to_vec(), &true.into()));
    assert_eq!(shop.try_get("customers?limit=101").await.0, 400);
    assert_eq!(shop.try_get("customers?starting_after=cus_none").await.0, 400);
}

#[tokio::test]
async fn ids_expand_into_the_objects_that_they_name() {
    let shop = Shop::start().await;
    let price = shop.price(500, "usd", None).await;
    assert!(shop.get(&format!("prices/{price}")).await["product"].is_string());
    assert_eq!(shop.get(&format!("prices/{price}?expand[]=product")).await["product"]["name"], "Plan");
    assert_eq!(shop.get("prices?expand[]=data.product").await["data"][0]["product"]["object"], "product");
    let (status, refused) = shop.try_get(&format!("prices/{price}?expand[]=color")).await;
    assert_eq!((status, &refused["error"]["message"]), (400, &"This property cannot be expanded (color).".into()));
}
