//! A customer's balance: what invoices leave on it and take from it, and what credit notes bring.

use serde_json::{Value, json};

use super::client::{Shop, id};

/// A draft for so many cents.
async fn draft(shop: &Shop, customer: &str, cents: i64) -> String {
    let draft = id(&shop.post("invoices", &format!("customer={customer}&currency=usd&collection_method=charge_automatically")).await);
    shop.post("invoiceitems", &format!("customer={customer}&invoice={draft}&amount={cents}&currency=usd")).await;
    draft
}

async fn finalized(shop: &Shop, customer: &str, cents: i64) -> Value {
    let draft = draft(shop, customer, cents).await;
    shop.post(&format!("invoices/{draft}/finalize"), "auto_advance=false").await
}

async fn balance(shop: &Shop, customer: &str) -> i64 {
    shop.get(&format!("customers/{customer}")).await["balance"].as_i64().unwrap()
}

/// Type and amount of each move of a balance, the newest first.
async fn moves(shop: &Shop, customer: &str) -> Vec<(String, i64)> {
    let moves = shop.get(&format!("customers/{customer}/balance_transactions")).await;
    let one = |one: &Value| (one["type"].as_str().unwrap().to_owned(), one["amount"].as_i64().unwrap());
    moves["data"].as_array().unwrap().iter().map(one).collect()
}

fn last<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    &events.iter().rev().find(|event| event["type"] == kind).unwrap()["data"]
}

#[tokio::test]
async fn an_invoice_below_the_smallest_charge_is_paid_and_waits_on_the_balance_for_the_next_one() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let small = finalized(&shop, &customer, 49).await;
    assert_eq!((&small["status"], &small["amount_due"], &small["amount_paid"]), (&json!("paid"), &json!(0), &json!(0)));
    assert_eq!((&small["starting_balance"], &small["ending_balance"], &small["total"]), (&json!(0), &json!(49), &json!(49)));
    assert_eq!(last(&shop.simulator.events(), "customer.updated")["object"]["balance"], 49);
    let next = finalized(&shop, &customer, 1000).await;
    assert_eq!((&next["status"], &next["amount_due"], &next["ending_balance"]), (&json!("open"), &json!(1049), &json!(0)));
    let paid = shop.post(&format!("invoices/{}/pay", id(&next)), "").await;
    assert_eq!((&paid["amount_paid"], balance(&shop, &customer).await), (&json!(1049), 0));
    assert_eq!(moves(&shop, &customer).await, [("applied_to_invoice".to_owned(), -49), ("invoice_too_small".to_owned(), 49)]);
}

#[tokio::test]
async fn what_credit_leaves_of_an_invoice_waits_too_when_it_is_too_small_to_charge() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    shop.post(&format!("customers/{customer}"), "balance=-900").await;
    let invoice = finalized(&shop, &customer, 930).await;
    assert_eq!((&invoice["status"], &invoice["starting_balance"], &invoice["ending_balance"]), (&json!("paid"), &json!(-900), &json!(30)));
    let expected = [("invoice_too_small", 30), ("applied_to_invoice", 900), ("adjustment", -900)];
    assert_eq!(moves(&shop, &customer).await, expected.map(|(kind, amount)| (kind.to_owned(), amount)));
    assert_eq!(finalized(&shop, &customer, 20).await["amount_due"], 50, "together they are enough");
}

#[tokio::test]
async fn the_smallest_charge_is_that_of_the_currency() {
    let shop = Shop::start().await;
    for (currency, cents, status) in
        [("gbp", 29, "paid"), ("gbp", 30, "open"), ("jpy", 49, "paid"), ("jpy", 50, "open"), ("kwd", 10, "open")]
    {
        let customer = shop.customer().await;
        let draft = id(&shop.post("invoices", &format!("customer={customer}&currency={currency}")).await);
        shop.post("invoiceitems", &format!("customer={customer}&invoice={draft}&amount={cents}&currency={currency}")).await;
        assert_eq!(shop.post(&format!("invoices/{draft}/finalize"), "").await["status"], status, "{cents} {currency}");
    }
}

#[tokio::test]
async fn a_void_invoice_gives_back_what_the_balance_had_paid_of_it() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    shop.post(&format!("customers/{customer}"), "balance=-300").await;
    let invoice = finalized(&shop, &customer, 1000).await;
    assert_eq!((&invoice["amount_due"], balance(&shop, &customer).await), (&json!(700), 0));
    shop.post(&format!("invoices/{}/void", id(&invoice)), "").await;
    assert_eq!((balance(&shop, &customer).await, moves(&shop, &customer).await[0].0.as_str()), (-300, "unapplied_from_invoice"));
}

#[tokio::test]
async fn a_credit_note_is_split_over_card_balance_and_elsewhere_and_all_of_it_is_told() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let invoice = id(&finalized(&shop, &customer, 1000).await);
    shop.post(&format!("invoices/{invoice}/pay"), "").await;
    let form = format!("invoice={invoice}&amount=600&refund_amount=300&credit_amount=200&out_of_band_amount=100&reason=order_change");
    let note = shop.post("credit_notes", &form).await;
    let read = shop.get(&format!("credit_notes/{}?expand[]=customer_balance_transaction", id(&note))).await;
    let moved = &read["customer_balance_transaction"];
    assert_eq!((&moved["amount"], &moved["type"], &moved["credit_note"]), (&json!(-200), &json!("credit_note"), &note["id"]));
    assert_eq!((&read["refunds"][0]["amount_refunded"], &read["out_of_band_amount"]), (&json!(300), &json!(100)));
    assert_eq!((balance(&shop, &customer).await, &read["reason"]), (-200, &json!("order_change")));
    assert_eq!(shop.get(&format!("invoices/{invoice}")).await["post_payment_credit_notes_amount"], 600);
    shop.post(&format!("credit_notes/{}", id(&note)), "memo=Sorry").await;
    let events = shop.simulator.events();
    assert_eq!(last(&events, "credit_note.created")["object"]["id"], note["id"]);
    assert_eq!(last(&events, "credit_note.updated")["previous_attributes"], json!({"memo": null}));
    assert_eq!(shop.try_post(&format!("credit_notes/{}/void", id(&note)), "").await.0, 400, "what was given back stays given back");
}

#[tokio::test]
async fn a_credit_note_of_an_open_invoice_lowers_what_is_due_until_it_is_void() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let invoice = id(&finalized(&shop, &customer, 1000).await);
    let note = id(&shop.post("credit_notes", &format!("invoice={invoice}&amount=400")).await);
    assert_eq!(shop.get(&format!("invoices/{invoice}")).await["amount_due"], 600);
    let void = shop.post(&format!("credit_notes/{note}/void"), "").await;
    assert_eq!((&void["status"], shop.event_types().last().unwrap().as_str()), (&json!("void"), "credit_note.voided"));
    shop.post("credit_notes", &format!("invoice={invoice}&amount=250")).await;
    let paid = shop.post(&format!("invoices/{invoice}/pay"), "").await;
    assert_eq!((&paid["amount_paid"], &paid["pre_payment_credit_notes_amount"]), (&json!(750), &json!(250)));
    assert_eq!(shop.simulator.ledger()[0].credited, 250);
}
