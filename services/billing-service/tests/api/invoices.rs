//! Invoices as people read them: those of Stripe's that are theirs.

use serde_json::{Value, json};

use super::shop::Shop;

/// What is being made at Stripe may be taken away again, and nothing tells of that.
#[tokio::test]
async fn a_draft_is_no_invoice_until_it_is_final() {
    let shop = Shop::open().await;
    let (ada, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let customer = shop.stripe_customer(ada).await;
    let made = async || {
        shop.dashboard("/v1/invoices", &[("customer", &customer), ("auto_advance", "false")]).await["id"].as_str().unwrap().to_owned()
    };
    let (kept, gone) = (made().await, made().await);
    shop.settle().await;
    assert_eq!(shop.app.count("select count(*) from stripe_invoices where status = 'draft'").await, 2);
    assert_eq!(client.get("/v1/invoices").await.expect(200).json["data"], json!([]));
    shop.delete_at_stripe(&format!("/v1/invoices/{gone}")).await;
    shop.dashboard(&format!("/v1/invoices/{kept}/finalize"), &[("auto_advance", "false")]).await;
    shop.settle().await;
    let listed = client.get("/v1/invoices").await.expect(200).json["data"].clone();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &json!(kept)), "{listed}");
    shop.assert_reconciled().await;
}

/// Ten lines come with an invoice of Stripe's, and the others are asked for: all are read by who pays them, in their order, whatever made it.
#[tokio::test]
async fn an_invoice_has_all_of_its_lines_however_many_they_are() {
    let shop = Shop::open().await;
    let (ada, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let customer = shop.stripe_customer(ada).await;
    let draft = shop.dashboard("/v1/invoices", &[("customer", &customer), ("auto_advance", "false")]).await;
    let invoice = draft["id"].as_str().unwrap();
    let wanted: Vec<Value> =
        (1..=115).map(|number| json!({"description": format!("Hour {number}"), "amount_micros": 10_000 * number})).collect();
    for line in &wanted {
        let (amount, text) = ((line["amount_micros"].as_i64().unwrap() / 10_000).to_string(), line["description"].as_str().unwrap());
        let fields = [("customer", &*customer), ("invoice", invoice), ("currency", "usd"), ("amount", &*amount), ("description", text)];
        shop.dashboard("/v1/invoiceitems", &fields).await;
    }
    let is_final = shop.dashboard(&format!("/v1/invoices/{invoice}/finalize"), &[("auto_advance", "false")]).await;
    assert_eq!((is_final["lines"]["data"].as_array().unwrap().len(), &is_final["lines"]["has_more"]), (10, &json!(true)));
    shop.settle().await;
    let listed = client.get("/v1/invoices").await.expect(200).json["data"][0].clone();
    assert_eq!((&listed["id"], &listed["lines"]), (&draft["id"], &json!(wanted)));
    shop.assert_reconciled().await;
}
