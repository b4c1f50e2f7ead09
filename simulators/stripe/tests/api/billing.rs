//! Invoices by hand, credit notes, meters.

use stripe_simulator::{Fault, FaultKind};

use super::client::{Shop, id};

#[tokio::test]
async fn an_invoice_by_hand_goes_from_draft_to_paid() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let rate = id(&shop.post("tax_rates", "display_name=VAT&percentage=20&inclusive=true").await);
    shop.post("invoiceitems", &format!("customer={customer}&amount=1200&currency=usd&description=Work")).await;
    let draft =
        shop.post("invoices", &format!("customer={customer}&pending_invoice_items_behavior=include&default_tax_rates[0]={rate}")).await;
    assert_eq!((&draft["status"], &draft["total"], &draft["total_taxes"][0]["amount"]), (&"draft".into(), &1200.into(), &200.into()));
    let path = format!("invoices/{}", id(&draft));
    assert_eq!(shop.try_post(&format!("{path}/void"), "").await.0, 400);
    assert_eq!(shop.post(&format!("{path}/finalize"), "").await["status"], "open");
    assert_eq!(shop.post(&format!("{path}/pay"), "").await["status"], "paid");
    assert_eq!(shop.try_post(&format!("{path}/pay"), "").await.1["error"]["code"], "invoice_already_paid");
    assert!(shop.get(&format!("invoiceitems?customer={customer}&pending=true")).await["data"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn open_invoices_are_voided_or_given_up_and_drafts_deleted() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    for (verb, status) in [("void", "void"), ("mark_uncollectible", "uncollectible")] {
        let draft = shop.post("invoices", &format!("customer={customer}")).await;
        shop.post("invoiceitems", &format!("customer={customer}&amount=700&currency=usd&invoice={}", id(&draft))).await;
        assert_eq!(shop.post(&format!("invoices/{}/finalize", id(&draft)), "").await["amount_due"], 700);
        assert_eq!(shop.post(&format!("invoices/{}/{verb}", id(&draft)), "").await["status"], status);
    }
    let draft = shop.post("invoices", &format!("customer={customer}")).await;
    assert_eq!(shop.delete(&format!("invoices/{}", id(&draft))).await["deleted"], true);
}

#[tokio::test]
async fn ten_lines_come_with_an_invoice_and_the_others_are_on_its_pages() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    for amount in 1..=12 {
        shop.post("invoiceitems", &format!("customer={customer}&amount={amount}&currency=usd")).await;
    }
    let invoice = shop.post("invoices", &format!("customer={customer}&pending_invoice_items_behavior=include")).await;
    let lines = &invoice["lines"];
    assert_eq!((&invoice["total"], &lines["has_more"], &lines["total_count"]), (&78.into(), &true.into(), &12.into()));
    let shown = lines["data"].as_array().unwrap();
    let more = shop.get(&format!("invoices/{}/lines?limit=100&starting_after={}", id(&invoice), shown[9]["id"].as_str().unwrap())).await;
    let amounts = shown.iter().chain(more["data"].as_array().unwrap()).map(|line| line["amount"].as_i64().unwrap());
    assert_eq!((shown.len(), amounts.collect::<Vec<_>>(), &more["has_more"]), (10, (1..=12).collect(), &false.into()));
    let event = shop.simulator.events().pop().unwrap();
    assert_eq!((&event["type"], &event["data"]["object"]["lines"]), (&"invoice.created".into(), lines));
    // What is shown is cut, and nothing is lost.
    assert_eq!(shop.post(&format!("invoices/{}/finalize", id(&invoice)), "").await["amount_due"], 78);
    let all = shop.get(&format!("invoices/{}/lines?limit=100", id(&invoice))).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 12);
}

#[tokio::test]
async fn a_credit_note_refunds_or_credits_a_paid_invoice_and_never_more_than_it() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let price = shop.price(1000, "usd", Some("month")).await;
    let bought = shop.post("subscriptions", &format!("customer={customer}&items[0][price]={price}")).await;
    let invoice = bought["latest_invoice"].as_str().unwrap();
    let note = shop.post("credit_notes", &format!("invoice={invoice}&amount=600&refund_amount=400&credit_amount=200")).await;
    assert_eq!((&note["type"], &note["post_payment_amount"]), (&"post_payment".into(), &600.into()));
    assert_eq!(shop.try_post("credit_notes", &format!("invoice={invoice}&amount=401&credit_amount=401")).await.0, 400);
    assert_eq!(shop.get(&format!("customers/{customer}")).await["balance"], -200);
    let row = &shop.simulator.ledger()[0];
    assert_eq!((row.charged, row.refunded, row.credited, row.net), (1000, 400, 600, 600));
}

#[tokio::test]
async fn a_meter_takes_each_identifier_once_a_day_and_bills_what_was_used() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let meter = id(&shop.post("billing/meters", "display_name=Tokens&event_name=tokens&default_aggregation[formula]=sum").await);
    let recurring = format!("recurring[interval]=month&recurring[usage_type]=metered&recurring[meter]={meter}");
    let price = id(&shop.post("prices", &format!("unit_amount_decimal=0.5&currency=usd&product_data[name]=Tokens&{recurring}")).await);
    let start = shop.simulator.now();
    let bought = shop.post("subscriptions", &format!("customer={customer}&items[0][price]={price}")).await;
    assert_eq!(bought["status"], "active");
    let report = |identifier: &str, value: i64| {
        format!("event_name=tokens&identifier={identifier}&payload[stripe_customer_id]={customer}&payload[value]={value}")
    };
    shop.post("billing/meter_events", &report("a", 101)).await;
    let (status, twice) = shop.try_post("billing/meter_events", &report("a", 101)).await;
    assert_eq!((status, &twice["error"]["message"]), (400, &"An event already exists with identifier a.".into()));
    shop.simulator.advance(86_400);
    shop.post("billing/meter_events", &report("a", 100)).await;
    shop.post("billing/meter_events", &report("b", 7)).await;
    shop.post("billing/meter_event_adjustments", "event_name=tokens&type=cancel&cancel[identifier]=b").await;
    for timestamp in [start - 35 * 86_400, shop.simulator.now() + 301] {
        assert_eq!(shop.try_post("billing/meter_events", &format!("{}&timestamp={timestamp}", report("c", 1))).await.0, 400);
    }
    let range = format!("customer={customer}&start_time={start}&end_time={}", start + 2 * 86_400);
    let sums = shop.get(&format!("billing/meters/{meter}/event_summaries?{range}")).await;
    assert_eq!(sums["data"][0]["aggregated_value"], 201);
    let daily = shop.get(&format!("billing/meters/{meter}/event_summaries?{range}&value_grouping_window=day")).await;
    assert_eq!(daily["data"].as_array().unwrap().len(), 2);
    shop.simulator.advance(30 * 86_400 + 3600);
    let invoices = shop.get(&format!("invoices?subscription={}", id(&bought))).await;
    assert_eq!((&invoices["data"][0]["status"], &invoices["data"][0]["amount_paid"]), (&"paid".into(), &101.into()));
}

#[tokio::test]
async fn of_a_customer_and_meter_one_event_is_taken_at_a_time() {
    let shop = Shop::start().await;
    let (one, other) = (shop.customer_with("pm_card_visa").await, shop.customer_with("pm_card_visa").await);
    shop.post("billing/meters", "display_name=Tokens&event_name=tokens&default_aggregation[formula]=sum").await;
    let event = |customer: &str| format!("event_name=tokens&payload[stripe_customer_id]={customer}&payload[value]=1");
    let (of_one, of_other) = (event(&one), event(&other));
    let slow = Fault { delay_ms: 500, count: 3, ..Fault::next(FaultKind::Slow, "POST", "/v1/billing/meter_events") };
    shop.simulator.turn_knobs(|knobs| knobs.faults = vec![slow]);
    let answers = tokio::join!(
        shop.try_post("billing/meter_events", &of_one),
        shop.try_post("billing/meter_events", &of_one),
        shop.try_post("billing/meter_events", &of_other)
    );
    let mut of_one_customer = [answers.0.0, answers.1.0];
    of_one_customer.sort_unstable();
    assert_eq!((of_one_customer, answers.2.0), ([200, 429], 200));
    assert_eq!(shop.try_post("billing/meter_events", &of_one).await.0, 200);
}
