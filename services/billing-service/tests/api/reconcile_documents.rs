//! Each difference of customers, invoices, charges and pages [B-75], made real alone; `reconcile_money` says more.

use std::collections::BTreeSet;

use billing_service::audit::Decision;
use billing_service::stripe::reconcile::{self, Severity, repair};
use serde_json::json;

use super::reconcile_desk::{Desk, with_a_pack, with_a_plan};

const INVOICE: &str = "select invoice_id from stripe_invoices";
const PAGE: &str = "select session_id from checkouts where state = 'paid'";

/// [B-75]
#[tokio::test]
async fn customer_missing_is_an_organization_that_waits_for_its_customer() {
    let desk = with_a_pack().await;
    desk.while_ours_say(
        "insert into stripe_customers
           select '00000000-0000-0000-0000-000000000001', 'a@example.com', 'A', 'key', null, 3, '2031-01-01', '2029-01-01'",
    )
    .await;
    let one = desk.differs("customer_missing", Severity::Error, "00000000-0000-0000-0000-000000000001", &[]).await;
    desk.is_refused(&one).await;
    desk.undone("delete from stripe_customers where idempotency_key = 'key'").await;
}

/// [B-75]
#[tokio::test]
async fn customer_none_is_a_note_that_an_organization_bought_nothing_yet_and_its_first_page_ends_it() {
    let desk = with_a_pack().await;
    let (organization, client) = desk.shop.customer();
    client.get("/v1/balance").await.expect(200);
    let state = desk.shop.app.state();
    let made: Result<(), billing_service::error::Error> = chassis::in_transaction!(state.pool, |transaction| {
        billing_service::organizations::ensure_wallet(&state, transaction, organization).await?;
        Ok(())
    });
    made.unwrap();
    let one = desk.differs("customer_none", Severity::Info, &organization.uuid().to_string(), &[]).await;
    assert_eq!(one.organization, Some(organization));
    desk.is_refused(&one).await;
    desk.shop.pack(&client, "small").await.expect(201);
    desk.shop.settle().await;
    desk.agrees().await;
}

/// [B-75]
#[tokio::test]
async fn customer_unknown_is_a_customer_that_stripe_does_not_have() {
    let desk = with_a_pack().await;
    let customer = desk.shop.stripe_customer(desk.organization).await;
    desk.bent.hide(&customer);
    let one = desk.is_wrong("customer_unknown", &customer, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn customer_double_is_a_second_customer_of_an_organization() {
    let desk = with_a_pack().await;
    let second = desk.shop.dashboard("/v1/customers", &[("metadata[organization_id]", &desk.organization.to_string())]).await;
    let second = second["id"].as_str().unwrap();
    let one = desk.is_wrong("customer_double", second, &[]).await;
    assert_eq!(one.ours, desk.shop.stripe_customer(desk.organization).await);
    desk.is_refused(&one).await;
    desk.shop.delete_at_stripe(&format!("/v1/customers/{second}")).await;
    desk.agrees().await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn invoice_missing_is_an_invoice_of_which_we_know_nothing_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    let invoice = desk.one(INVOICE).await;
    desk.while_ours_say("delete from stripe_invoices").await;
    let one = desk.is_wrong("invoice_missing", &invoice, &[]).await;
    desk.is_mended(&one).await;
    assert_eq!(desk.one(INVOICE).await, invoice);
}

/// [B-75]
#[tokio::test]
async fn invoice_unknown_is_an_invoice_that_stripe_does_not_have() {
    let desk = with_a_plan().await;
    let invoice = desk.one(INVOICE).await;
    desk.bent.hide(&invoice);
    let one = desk.is_wrong("invoice_unknown", &invoice, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn invoice_owner_is_an_invoice_of_another_customer_at_stripe() {
    let desk = with_a_plan().await;
    let (other, client) = desk.shop.customer();
    desk.shop.pack(&client, "small").await.expect(201);
    desk.shop.settle().await;
    let invoice = desk.one(INVOICE).await;
    desk.bent.say(&invoice, "/customer", desk.shop.stripe_customer(other).await);
    let one = desk.is_wrong("invoice_owner", &invoice, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn invoice_status_is_an_invoice_whose_end_nobody_told_us_of_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    desk.while_ours_say("update stripe_invoices set status = 'open', paid_at = null").await;
    let one = desk.is_wrong("invoice_status", &desk.one(INVOICE).await, &[]).await;
    desk.is_mended(&one).await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn invoice_amount_is_an_invoice_of_another_total_at_stripe_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    desk.while_ours_say("update stripe_invoices set total_micros = total_micros + 1").await;
    let one = desk.is_wrong("invoice_amount", &desk.one(INVOICE).await, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("paid 100000001 USD", "paid 100000000 USD"));
    desk.is_mended(&one).await;
}

/// [B-75] [B-76]
#[tokio::test]
async fn invoice_sums_is_an_invoice_whose_lines_do_not_come_to_its_total() {
    let desk = with_a_plan().await;
    let invoice = desk.one(INVOICE).await;
    desk.bent.say(&invoice, "/lines/data/0/amount", 1);
    let one = desk.is_wrong("invoice_sums", &invoice, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// A credit note of five dollars for the customer's balance.
async fn noted(desk: &Desk) -> String {
    let invoice = desk.one(INVOICE).await;
    let fields = [("invoice", invoice.as_str()), ("amount", "500"), ("credit_amount", "500")];
    desk.shop.dashboard("/v1/credit_notes", &fields).await["id"].as_str().unwrap().to_owned()
}

/// [B-75] [B-78] What it put on the customer's balance is as unknown until then.
#[tokio::test]
async fn credit_note_missing_is_a_credit_note_of_which_we_know_nothing_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    let note = noted(&desk).await;
    desk.lose();
    let one = desk.is_wrong("credit_note_missing", &note, &["customer_balance"]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("nothing", "issued 5000000 USD, to the balance 5000000"));
    desk.is_mended(&one).await;
    assert_eq!(desk.one("select credit_note_id from stripe_credit_notes").await, note);
}

/// [B-75]
#[tokio::test]
async fn credit_note_unknown_is_a_credit_note_that_stripe_does_not_have() {
    let desk = with_a_plan().await;
    let note = noted(&desk).await;
    desk.shop.settle().await;
    desk.bent.hide(&note);
    let one = desk.is_wrong("credit_note_unknown", &note, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn credit_note_owner_is_a_credit_note_of_another_customer_at_stripe() {
    let desk = with_a_plan().await;
    let (other, client) = desk.shop.customer();
    desk.shop.pack(&client, "small").await.expect(201);
    let note = noted(&desk).await;
    desk.shop.settle().await;
    desk.bent.say(&note, "/customer", desk.shop.stripe_customer(other).await);
    let one = desk.is_wrong("credit_note_owner", &note, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn credit_note_status_is_a_credit_note_whose_end_nobody_told_us_of_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    let note = noted(&desk).await;
    desk.shop.settle().await;
    desk.while_ours_say("update stripe_credit_notes set status = 'void'").await;
    let one = desk.is_wrong("credit_note_status", &note, &[]).await;
    desk.is_mended(&one).await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn credit_note_amount_is_a_credit_note_of_another_amount_at_stripe_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    let note = noted(&desk).await;
    desk.shop.settle().await;
    desk.while_ours_say("update stripe_credit_notes set balance_micros = balance_micros - 1").await;
    let one = desk.is_wrong("credit_note_amount", &note, &[]).await;
    assert_eq!(one.ours, "issued 5000000 USD, to the balance 4999999");
    desk.is_mended(&one).await;
}

/// [B-75] [B-78] Somebody gave the customer something at the dashboard: whether it stands is for people to decide.
#[tokio::test]
async fn customer_balance_is_a_balance_that_somebody_changed_at_stripe_and_a_repair_books_the_change() {
    let desk = with_a_plan().await;
    let customer = given(&desk).await;
    desk.shop.settle().await;
    let one = desk.is_wrong("customer_balance", &customer, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("0 USD", "5000000 USD"));
    desk.is_mended(&one).await;
    assert_eq!((desk.shop.app.house("customer_balances").await, desk.shop.app.house("adjustments").await), (5_000_000, -5_000_000));
    assert_eq!(desk.shop.app.count("select count(*) from audit_log where action = 'stripe.repair'").await, 1);
    // Decided again upon what was compared before, it is not booked again.
    let state = desk.shop.app.state();
    let decision = Decision::new(&state, "ada", "a test", None);
    assert!(!repair::repair(&state, state.stripe.as_ref().unwrap(), &decision, &one).await.unwrap());
    desk.agrees().await;
}

/// Somebody gives the customer five dollars at the dashboard; who that is.
async fn given(desk: &Desk) -> String {
    let customer = desk.shop.stripe_customer(desk.organization).await;
    let path = format!("/v1/customers/{customer}/balance_transactions");
    desk.shop.dashboard(&path, &[("amount", "-500"), ("currency", "usd")]).await;
    customer
}

/// What the house owes customers for their balances, and what was booked by hand.
async fn booked(desk: &Desk) -> (i64, i64) {
    let owed = "select coalesce(sum(balance_micros), 0)::bigint from accounts where kind = 'customer_balances'";
    let by_hand = "select coalesce(sum(balance_micros), 0)::bigint from accounts where kind = 'adjustments'";
    (desk.shop.app.count(owed).await, desk.shop.app.count(by_hand).await)
}

/// [B-75] The page of customers is read long before the ledger: a credit note came in between.
#[tokio::test]
async fn what_moved_a_balance_while_it_was_compared_is_a_note_and_no_error() {
    let desk = with_a_plan().await;
    noted(&desk).await;
    desk.shop.settle().await;
    desk.bent.say(&desk.shop.stripe_customer(desk.organization).await, "/balance", 0);
    let state = desk.shop.app.state();
    let report = reconcile::compare(&state, state.stripe.as_ref().unwrap()).await.unwrap();
    let [one] = &report.differences[..] else { panic!("{report:#?}") };
    assert_eq!((one.kind, one.severity), ("customer_balance", Severity::Info));
    assert!(repair::refusal(one, &report.differences).is_some());
    assert!(desk.repair(&one.object).await.is_ok(), "a note is no error");
    assert_eq!(booked(&desk).await, (5_000_000, 0));
}

/// [B-75] [B-78] A repair asks Stripe again, and does not book what is so no longer.
#[tokio::test]
async fn a_balance_that_is_another_by_now_is_not_repaired() {
    let desk = with_a_plan().await;
    noted(&desk).await;
    desk.shop.settle().await;
    let customer = desk.shop.stripe_customer(desk.organization).await;
    desk.bent.say(&customer, "/balance", 0);
    let one = desk.is_wrong("customer_balance", &customer, &[]).await;
    desk.bent.straighten();
    let state = desk.shop.app.state();
    let decision = Decision::new(&state, "ada", "a test", None);
    assert!(!repair::repair(&state, state.stripe.as_ref().unwrap(), &decision, &one).await.unwrap());
    assert_eq!(booked(&desk).await, (5_000_000, 0));
    desk.agrees().await;
}

/// [B-75] [B-78] What the credit note brings when it is repaired would be booked twice.
#[tokio::test]
async fn a_balance_is_not_repaired_beside_another_difference_that_may_be_why() {
    let desk = with_a_plan().await;
    noted(&desk).await;
    desk.lose();
    let report = desk.compare().await;
    let balance = report.differences.iter().find(|one| one.kind == "customer_balance").unwrap();
    assert_eq!((report.differences.len(), balance.severity), (2, Severity::Error));
    assert!(repair::refusal(balance, &report.differences).unwrap().contains("credit_note_missing"));
    assert!(desk.repair(&balance.object).await.is_err());
    assert_eq!(booked(&desk).await, (0, 0));
    desk.repair("all").await.unwrap();
    assert_eq!(booked(&desk).await, (5_000_000, 0));
    desk.agrees().await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn a_balance_of_which_a_part_waits_to_be_returned_is_a_note_and_is_not_repaired() {
    let desk = with_a_plan().await;
    let customer = given(&desk).await;
    desk.shop.settle().await;
    let wait = "insert into intents (id, kind, subject, organization_id, idempotency_key, payload, next_attempt_at, created_at)
        select '00000000-0000-0000-0000-000000000001', 'balance.return', 'one', organization_id, 'one', '{}', '2999-01-01', '2029-01-01'
        from stripe_customers";
    desk.shop.app.as_owner(wait).await;
    let one = desk.differs("customer_balance", Severity::Info, &customer, &[]).await;
    desk.is_refused(&one).await;
    desk.shop.app.as_owner("update intents set sent_at = '2029-01-01' where idempotency_key = 'one'").await;
    let one = desk.is_wrong("customer_balance", &customer, &[]).await;
    desk.is_mended(&one).await;
}

/// [B-75] A restricted key from before credit notes were read.
#[tokio::test]
async fn a_key_that_may_not_read_credit_notes_keeps_nothing_else_from_being_compared() {
    let desk = with_a_plan().await;
    desk.shop.app.as_owner("update stripe_invoices set status = 'open'").await;
    given(&desk).await;
    desk.bent.forbid("/v1/credit_notes");
    desk.is_wrong("invoice_status", &desk.one(INVOICE).await, &["unreadable"]).await;
    desk.shop.app.as_owner("update stripe_invoices set status = 'paid'").await;
    let one = desk.differs("unreadable", Severity::Error, "credit_notes", &[]).await;
    assert!(one.theirs.contains("403"), "{one:?}");
    desk.is_refused(&one).await;
}

/// [B-75] It could not be compared, and is there nevertheless.
#[tokio::test]
async fn a_customer_in_a_currency_that_is_none_of_ours_is_not_taken_for_gone() {
    let desk = with_a_plan().await;
    let customer = given(&desk).await;
    desk.bent.say(&customer, "/currency", "zzz");
    let one = desk.differs("unreadable", Severity::Error, &customer, &[]).await;
    assert_eq!(one.theirs, "no readable currency");
    desk.bent.straighten();
    desk.is_wrong("customer_balance", &customer, &[]).await;
}

/// [B-75]
#[tokio::test]
async fn charge_double_is_a_charge_with_two_invoices_that_were_paid() {
    let desk = with_a_plan().await;
    let (first, of_charge) = (desk.one(INVOICE).await, "select id::text from subscription_charges where reason <> 'start'");
    let charge = desk.one(of_charge).await;
    desk.shop.pass(std::time::Duration::from_hours(31 * 24));
    desk.shop.renewed(2).await;
    let other: String = sqlx::query_scalar("select invoice_id from stripe_invoices where invoice_id <> $1")
        .bind(&first)
        .fetch_one(&desk.shop.app.database.owner)
        .await
        .unwrap();
    desk.agrees().await;
    desk.bent.say(&other, "/metadata/charge_id", charge.as_str());
    let one = desk.is_wrong("charge_double", &charge, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("1 payments", "2 paid of 2 invoices"));
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn charge_lost_is_a_charge_that_nothing_is_about_to_collect() {
    let desk = with_a_plan().await;
    desk.while_ours_say(
        "insert into subscription_charges select '00000000-0000-0000-0000-000000000001', subscription_id, organization_id, period_start,
           'forgotten', currency, lines, 1, '2029-01-01' from subscription_charges limit 1",
    )
    .await;
    let one = desk.is_wrong("charge_lost", "00000000-0000-0000-0000-000000000001", &[]).await;
    desk.is_refused(&one).await;
    desk.undone("delete from subscription_charges where reason = 'forgotten'").await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn checkout_unpaid_is_a_page_that_was_completed_and_a_repair_brings_its_effect() {
    let desk = with_a_pack().await;
    let page = desk.one(PAGE).await;
    desk.while_ours_say("update checkouts set state = 'open', ended_at = null").await;
    let one = desk.is_wrong("checkout_unpaid", &page, &[]).await;
    desk.is_mended(&one).await;
    assert_eq!(desk.shop.app.balance(&desk.client).await, (110_000_000, 0));
}

/// [B-75]
#[tokio::test]
async fn checkout_unproved_is_a_page_that_counts_as_paid_here_alone() {
    let desk = with_a_pack().await;
    let page = desk.one(PAGE).await;
    desk.bent.hide(&page);
    let one = desk.is_wrong("checkout_unproved", &page, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn checkout_owner_is_a_page_of_another_customer_at_stripe() {
    let desk = with_a_pack().await;
    let (other, client) = desk.shop.customer();
    desk.shop.pack(&client, "small").await.expect(201);
    desk.shop.settle().await;
    let page = desk.one(PAGE).await;
    desk.bent.say(&page, "/customer", desk.shop.stripe_customer(other).await);
    let one = desk.is_wrong("checkout_owner", &page, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn checkout_unknown_is_a_page_of_an_id_that_we_never_gave() {
    let desk = with_a_pack().await;
    let customer = desk.shop.stripe_customer(desk.organization).await;
    let fields = [
        ("mode", "setup"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("success_url", "https://shop.example.com/thanks"),
        ("metadata[checkout_id]", "00000000-0000-0000-0000-000000000001"),
    ];
    let page = desk.shop.dashboard("/v1/checkout/sessions", &fields).await["id"].as_str().unwrap().to_owned();
    desk.shop.stripe.complete_checkout(&page, "pm_card_visa").unwrap();
    let one = desk.differs("checkout_unknown", Severity::Warning, &page, &[]).await;
    assert_eq!(one.organization, Some(desk.organization));
    desk.is_refused(&one).await;
    desk.bent.hide(&page);
    desk.agrees().await;
}

/// [B-75] A kind without a test of its own fails this one.
#[test]
fn each_kind_of_difference_has_a_test_of_its_own() {
    let meters = [include_str!("stripe_meters.rs"), include_str!("stripe_meter_decisions.rs"), include_str!("stripe_meter_losses.rs")];
    let tests = [include_str!("reconcile_money.rs"), include_str!("reconcile_documents.rs")].concat() + &meters.concat();
    let without: BTreeSet<&str> = reconcile::kinds()
        .filter(|kind| {
            let own = tests.contains(&format!("async fn {kind}_is_"));
            let asserted = tests.contains(&format!("(\"{kind}\", ")) || tests.contains(&format!(".0, \"{kind}\""));
            !(asserted && (own || kind.starts_with("meter_")))
        })
        .collect();
    assert_eq!(json!(without), json!([]));
}

/// [B-75] Several pages of each list: all of it is compared, in both directions, and a page at once is held.
#[tokio::test]
async fn a_long_history_is_compared_page_by_page() {
    let desk = with_a_pack().await;
    let customer = desk.shop.stripe_customer(desk.organization).await;
    let cards = desk.client.get("/v1/payment-methods").await.expect(200).json;
    let card = cards["data"][0]["id"].as_str().unwrap();
    let fields = [
        ("amount", "100"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("payment_method", card),
        ("confirm", "true"),
        ("off_session", "true"),
    ];
    let mut paid = BTreeSet::new();
    for _ in 0..249 {
        paid.insert(desk.shop.dashboard("/v1/payment_intents", &fields).await["id"].as_str().unwrap().to_owned());
    }
    let report = desk.compare().await;
    let foreign = report.differences.iter().filter(|one| one.kind == "payment_foreign").map(|one| one.object.clone());
    assert_eq!(foreign.collect::<BTreeSet<_>>(), paid);
    assert_eq!((report.differences.len(), report.seen[1], report.most_held), (249, 250, 100));
    // The oldest is on the last page, and ours knows what was sold for it: hidden, it is missed.
    let oldest = desk.one("select payment_intent_id from stripe_payments").await;
    desk.bent.hide(&oldest);
    let report = desk.compare().await;
    let unknown: Vec<&str> = report.differences.iter().filter(|one| one.kind == "payment_unknown").map(|one| one.object.as_str()).collect();
    assert_eq!(unknown, [oldest.as_str()]);
    assert_eq!(desk.shop.app.count("select count(*) from reconciliation_listed").await, 0, "rows of a run go with it");
}
