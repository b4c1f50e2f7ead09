//! Pages of invoices, credit notes and the portal, as a person sees them.

use serde_json::Value;

use super::client::{Shop, id};

async fn read(shop: &Shop, url: &str) -> (u16, String) {
    let answer = shop.http.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn url<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap()
}

/// An invoice for 15.00 USD of somebody without a card.
async fn open_invoice(shop: &Shop) -> Value {
    let customer = shop.customer().await;
    let draft = shop.post("invoices", &format!("customer={customer}")).await;
    let line = format!("customer={customer}&amount=1500&currency=usd&description=Work&invoice={}", id(&draft));
    shop.post("invoiceitems", &line).await;
    shop.post(&format!("invoices/{}/finalize", id(&draft)), "").await
}

#[tokio::test]
async fn an_open_invoice_is_refused_asked_about_and_paid_once_on_its_page() {
    let shop = Shop::start().await;
    let invoice = open_invoice(&shop).await;
    let page = url(&invoice, "hosted_invoice_url");
    let (status, text) = read(&shop, page).await;
    assert_eq!(status, 200);
    assert!(["Work", "15.00 USD", "is open", "Pay", "Fail", "3-D Secure"].iter().all(|part| text.contains(part)), "{text}");
    assert!(shop.press(page, "action", "fail").await.text().await.unwrap().contains("Your card was declined."));
    assert_eq!(shop.event_types().last().unwrap(), "invoice.payment_failed");
    assert!(shop.press(page, "action", "authenticate").await.text().await.unwrap().contains("Complete authentication"));
    assert!(shop.press(page, "action", "refuse").await.text().await.unwrap().contains("not confirmed"));
    let path = format!("invoices/{}", id(&invoice));
    assert_eq!(shop.get(&path).await["status"], "open");
    shop.press(page, "action", "authenticate").await;
    let paid = shop.press(page, "action", "confirm").await;
    assert_eq!((paid.status().as_u16(), paid.headers()["location"].to_str().unwrap()), (303, page));
    let (_, text) = read(&shop, page).await;
    assert!(text.contains("is paid") && !text.contains("<button"), "{text}");
    assert_eq!(shop.press(page, "action", "pay").await.status(), 400, "a second tab pays nothing");
    let found = shop.get(&path).await;
    assert_eq!((&found["status"], &found["amount_paid"], &found["attempt_count"]), (&"paid".into(), &1500.into(), &1.into()));
    assert_eq!(shop.simulator.ledger()[0].charged, 1500);
}

#[tokio::test]
async fn a_draft_has_no_page_yet() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    let draft = shop.post("invoices", &format!("customer={customer}")).await;
    for path in [format!("invoices/{}", id(&draft)), format!("invoices/{}/pdf", id(&draft)), "credit_notes/cn_1/pdf".to_owned()] {
        assert_eq!(read(&shop, &format!("{}/{path}", shop.simulator.url)).await.0, 404, "{path}");
    }
    let page = format!("{}/invoices/{}", shop.simulator.url, id(&draft));
    assert_eq!(shop.press(&page, "action", "pay").await.status(), 404);
}

#[tokio::test]
async fn an_invoice_and_its_credit_note_are_printed_with_their_lines_and_sums() {
    let shop = Shop::start().await;
    let invoice = open_invoice(&shop).await;
    let note = shop.post("credit_notes", &format!("invoice={}&amount=400", id(&invoice))).await;
    for (object, field, parts) in [
        (&invoice, "invoice_pdf", vec!["a@example.com", "Work", "15.00 USD", "Amount due"]),
        (&note, "pdf", vec!["Credit note", "4.00 USD", url(&note, "invoice")]),
    ] {
        let (status, text) = read(&shop, url(object, field)).await;
        let missing: Vec<&str> = parts.into_iter().filter(|part| !text.contains(part)).collect();
        assert!(status == 200 && missing.is_empty() && text.contains(url(object, "number")), "{status} {missing:?} {text}");
    }
}

#[tokio::test]
async fn a_card_that_is_chosen_in_the_portal_pays_from_then_on_and_one_that_is_refused_does_not() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let portal = shop.post("billing_portal/sessions", &format!("customer={customer}")).await;
    let (page, form) = (url(&portal, "url"), format!("{}/card", url(&portal, "url")));
    assert!(read(&shop, page).await.1.contains("visa ending in 4242"));
    assert_eq!(shop.press(&form, "card", "pm_card_mastercard").await.status(), 303);
    assert!(read(&shop, page).await.1.contains("mastercard ending in 4444"));
    assert_eq!(shop.event_types().last().unwrap(), "customer.updated");
    let refused = shop.press(&form, "card", "pm_card_chargeDeclined").await;
    assert_eq!(refused.status(), 402);
    let text = refused.text().await.unwrap();
    assert!(text.contains("Your card was declined.") && text.contains("mastercard ending in 4444"), "{text}");
    assert_eq!(shop.press(&form, "card", "pm_card_unknown").await.status(), 400);
    // The bank asks once, and whoever sits before the page answers: later payments need nobody.
    assert_eq!(shop.press(&form, "card", "pm_card_authenticationRequired").await.status(), 303);
    let price = shop.price(700, "usd", Some("month")).await;
    let bought = shop.post("subscriptions", &format!("customer={customer}&items[0][price]={price}&off_session=true")).await;
    assert_eq!(bought["status"], "active");
    let listed = shop.get(&format!("invoices/{}", bought["latest_invoice"].as_str().unwrap())).await;
    assert!(read(&shop, page).await.1.contains(url(&listed, "hosted_invoice_url")), "the portal leads to its invoices");
}
